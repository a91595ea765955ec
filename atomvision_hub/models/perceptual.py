"""Content loss: the distance of two images in the features of a VGG network trained on photographs.

J. Johnson et al., ECCV 2016 (arXiv:1603.08155); C. Ledig et al., CVPR 2017 (arXiv:1609.04802). A content is
named ``vgg19:4``: the first 4 modules of torchvision's ``vgg19().features`` (convolution, ReLU, convolution,
ReLU; 9 ends before the second pooling, 18 before the third, 36 at the last ReLU). ``pixels`` compares the
images themselves.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from atomvision_hub._files import sha256_file
from atomvision_hub.errors import AtomVisionError, NetworkNeededError, UsageError

#: Convolutions and poolings of torchvision's networks: output channels, or "M".
_LAYOUTS: dict[str, tuple[int | str, ...]] = {
    "vgg16": (64, 64, "M", 128, 128, "M", *(256,) * 3, "M", *(512,) * 3, "M", *(512,) * 3, "M"),
    "vgg19": (64, 64, "M", 128, 128, "M", *(256,) * 4, "M", *(512,) * 4, "M", *(512,) * 4, "M"),
}
#: Mean and standard deviation of ImageNet's colour channels, which the networks were trained with.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def make_features(network: str, layers: int) -> nn.Sequential:
    """Return the first `layers` modules of a VGG network, named as in torchvision, weights not set."""
    modules: list[nn.Module] = []
    before = 3
    for width in _LAYOUTS[network]:
        if isinstance(width, str):
            modules.append(nn.MaxPool2d(2))
        else:
            modules += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
            before = width
    return nn.Sequential(*modules[:layers])


def parse_content(content: str) -> tuple[str, int] | None:
    """Return network and number of modules of a content's name, or None for ``pixels``.

    Raises
    ------
    UsageError
    """
    if content == "pixels":
        return None
    network, _, number = content.partition(":")
    known = network in _LAYOUTS and number.isdecimal()
    if not known or not 1 <= int(number) <= len(make_features(network, 1000)):
        raise UsageError(
            f"content is vgg16:N or vgg19:N with N modules (vgg19:4, at most vgg16:31, vgg19:37), or pixels, "
            f"not {content!r}"
        )
    return network, int(number)


class Content(nn.Module):
    """Mean squared difference of grey images 0..1 in the features of a frozen network.

    Parameters
    ----------
    content
        Which, see this module.
    weights
        safetensors file with torchvision's names (``features.0.weight``, ...), for example of
        ``benchmarks/convert_vgg16.py``; without one, torchvision's ImageNet weights are downloaded.

    Attributes
    ----------
    origin
        Where the weights come from, in words, with their SHA-256.
    """

    def __init__(self, content: str, weights: Path | None = None) -> None:
        super().__init__()
        wanted = parse_content(content)
        self.features = make_features(*wanted) if wanted is not None else nn.Sequential()
        self.origin = "the pixels themselves"
        if wanted is not None:
            state, self.origin = _read(weights) if weights is not None else _download(wanted[0])
            mine = {name: state.get(f"features.{name}") for name in self.features.state_dict()}
            lacking = [name for name, value in mine.items() if value is None]
            if lacking:
                raise UsageError(
                    f"{weights or wanted[0]} has no features.{lacking[0]}, which {content} needs"
                )
            try:
                self.features.load_state_dict(
                    {name: value for name, value in mine.items() if value is not None}
                )
            except RuntimeError as problem:
                reason = str(problem).splitlines()[-1].strip()
                raise UsageError(f"{weights} does not fit {content}: {reason}") from None
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(_STD)[:, None, None], persistent=False)
        self.requires_grad_(False)
        self.eval()

    def forward(self, images: Tensor, truth: Tensor) -> Tensor:
        """Return the mean of the squared differences of every image, float32 [batch]."""
        if not len(self.features):
            return (images.float() - truth.float()).square().mean(dim=(1, 2, 3))
        with torch.no_grad():
            wanted = self._look(truth)
        return (self._look(images).float() - wanted.float()).square().mean(dim=(1, 2, 3))

    def _look(self, images: Tensor) -> Tensor:
        # Grey in all three channels.
        found: Tensor = self.features((images - self.mean) / self.std)
        return found


def _read(weights: Path) -> tuple[dict[str, Tensor], str]:
    try:
        return load_file(weights), f"{weights.name}, SHA-256 {sha256_file(weights)}"
    except FileNotFoundError:
        raise UsageError(f"there is no file {weights} with weights for the content loss") from None
    except (OSError, SafetensorError) as problem:
        raise AtomVisionError(f"{weights} is no safetensors file: {problem}") from None


def _download(network: str) -> tuple[dict[str, Tensor], str]:
    import torchvision

    published = torchvision.models.get_model_weights(network).IMAGENET1K_V1
    try:
        state: dict[str, Tensor] = published.get_state_dict(
            progress=False, check_hash=True, weights_only=True
        )
    except OSError as problem:
        raise NetworkNeededError(
            f"torchvision's weights of {network} cannot be had ({type(problem).__name__}); connect to the "
            "network, or give data.content_weights=FILE.safetensors (benchmarks/convert_vgg16.py makes one)"
        ) from None
    return state, f"torchvision {network} IMAGENET1K_V1, {published.url.rpartition('/')[2]}"
