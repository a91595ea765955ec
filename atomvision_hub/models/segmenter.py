"""Segmenter: a U-Net that says of every pixel whether it belongs to an atom."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import segmentation_models_pytorch as smp
import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import adapt_input_conv
from torch import Tensor, nn

from atomvision_hub.errors import AtomVisionError, NetworkNeededError, UsageError
from atomvision_hub.models.base import HubModel, check_images
from atomvision_hub.models.column_masks import with_columns
from atomvision_hub.models.views import USUAL, VIEWS, WIDTH, look_at


class Segmenter(HubModel):
    """A U-Net of segmentation-models-pytorch on grey images of any size, intensities of any scale.

    Every image is normalised by its own mean and darkest pixel (`look_at`) and padded to what the network
    needs; the padding is cut off again.

    Parameters
    ----------
    encoder
        Name as in segmentation-models-pytorch, ``tu-NAME`` for one of timm.
    depth
        Number of times the encoder halves the image, 3 to 5.
    decoder_channels
        Width of the decoder's blocks, coarse to fine, one for each halving.
    views
        What it gets to see of an image.
    outputs
        How many masks it answers with: one for each of ``known["mask_radii"]`` (Å), or one.
    stride
        So many pixels along each side are averaged before the network, which answers for each of them again.
        Columns are many pixels wide: 2 costs a quarter.
    known
        Of `HubModel`; ``threshold`` is the probability above which a pixel counts as atom.

    Raises
    ------
    UsageError
        When there is no such encoder or the numbers do not fit each other.
    """

    kind: ClassVar[str] = "segmenter"
    task: ClassVar[str] = "image-segmentation"

    def __init__(
        self,
        *,
        encoder: str = "tu-efficientnet_lite0",
        depth: int = 4,
        decoder_channels: Sequence[int] = (128, 80, 40, 16),
        views: Sequence[str] = USUAL,
        outputs: int = 1,
        stride: int = 1,
        known: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            arguments={
                "encoder": encoder,
                "depth": depth,
                "decoder_channels": list(decoder_channels),
                "views": list(views),
                "outputs": outputs,
                "stride": stride,
            },
            known=known,
        )
        if len(decoder_channels) != depth or not 3 <= depth <= 5:
            raise UsageError(
                f"a depth of 3 to 5 needs as many decoder_channels, not {depth} and {list(decoder_channels)}"
            )
        if not views or not all(re.fullmatch(VIEWS, view) for view in views):
            raise UsageError(
                f"views must be some of linear, root, log, restored_N, deconvolved_N, not {list(views)}"
            )
        _check_encoder(encoder)
        self.views: tuple[str, ...] = tuple(views)
        if stride not in (1, 2, 4):
            raise UsageError(f"stride must be 1, 2 or 4, not {stride}")
        self.stride = stride
        self.multiple = 2**depth
        with warnings.catch_warnings():
            # Names of smp's own copies of timm's networks are deprecated there, but still right.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.network = smp.Unet(
                encoder,
                encoder_depth=depth,
                encoder_weights=None,
                decoder_channels=tuple(decoder_channels),
                in_channels=len(views),
                classes=decoder_channels[-1],
            )
        _drop_unused(self.network.encoder)
        # Sees the views once more at full resolution: outlines are as sharp as the restored columns.
        self.head = nn.Sequential(
            nn.Conv2d(decoder_channels[-1] + len(views), 32, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, outputs * stride**2, 3, padding=1),
            nn.PixelShuffle(stride),
        )
        # On a CPU a third faster, on a GPU what its convolutions want.
        self.to(memory_format=torch.channels_last)

    @property
    def threshold(self) -> float:
        """Probability above which a pixel counts as atom, as validation chose it."""
        return float(self.known.get("threshold", 0.5))

    def forward(self, images: Tensor, *, every: bool = False) -> Tensor:
        """Return logits of "this pixel belongs to an atom".

        Parameters
        ----------
        images
            Grey, float 0..1, [batch, 1, row, column], any rows and columns.
        every
            Return all masks, not only the first.

        Returns
        -------
        Tensor
            [batch, 1, row, column]; [batch, outputs, row, column] with `every`.

        Raises
        ------
        UsageError
            When `images` are no such batch.
        """
        check_images(images, "a segmenter")
        rows, columns = images.shape[2:]
        values = images.float()
        below, right = -rows % self.stride, -columns % self.stride
        if below or right:
            values = torch.nn.functional.pad(values, (0, right, 0, below), mode="replicate")
        if self.stride > 1:
            values = torch.nn.functional.avg_pool2d(values, self.stride)
        seen = look_at(values, self.views, width=WIDTH / self.stride)
        seen = seen.to(next(self.network.parameters()).dtype)
        below, right = -seen.shape[2] % self.multiple, -seen.shape[3] % self.multiple
        if below or right:
            seen = torch.nn.functional.pad(seen, (0, right, 0, below), mode="replicate")
        logits: Tensor = self.head(torch.cat([self.network(seen), seen], 1))
        logits = logits[:, :, :rows, :columns]
        return logits if every else logits[:, :1]

    @torch.no_grad()
    def predict(
        self,
        images: Tensor,
        *,
        radius: float | None = None,
        pixel_size: float | Sequence[float] | None = None,
    ) -> Tensor:
        """Return the probability that a pixel belongs to an atom, float32 [batch, 1, row, column].

        Parameters
        ----------
        images
            As of `forward`.
        radius
            Radius of an atom's disk in Å, one of ``known["mask_radii"]``; the first by default.
        pixel_size
            Å/px, one number or one for each image. Given it, columns are fitted to each image
            (`analysis.fit_columns`: half a second on one core, 20 s at worst), and where they explain it
            and agree with the network their disks are the answer: columns that the probe merges are told
            apart.

        Raises
        ------
        UsageError
            When the model learned no such radius, a pixel size is no positive number, or `images` are no such
            batch.
        """
        radii = list(self.known.get("mask_radii", []))
        if radius is not None and radius not in radii:
            raise UsageError(f"this model knows disks of {radii or 'no'} Å, not {radius}")
        if pixel_size is not None and radius is None and not radii:
            raise UsageError("this model's masks have no radius in Å; leave the pixel size out")
        which = 0 if radius is None else radii.index(radius)
        found = self.forward(images, every=True)[:, which : which + 1].float().sigmoid()
        if pixel_size is None:
            return found
        sizes = [pixel_size] * len(images) if isinstance(pixel_size, int | float) else list(pixel_size)
        if len(sizes) != len(images) or not all(0 < size < float("inf") for size in sizes):
            raise UsageError(f"pixel_size is {pixel_size}; give Å/px, one number or one for each image")
        for place, size in enumerate(sizes):
            grey, own = (values[place, 0].double().cpu().numpy() for values in (images, found))
            answer = with_columns(own, grey, float(size), radii[which], self.threshold)
            found[place, 0] = torch.from_numpy(answer).to(found)
        return found

    def load_encoder(self, weights: str) -> str:
        """Start from a pretrained encoder; return in words which.

        Parameters
        ----------
        weights
            ``"imagenet"``: those that smp or timm publish (needs a network or a filled cache); otherwise a
            safetensors file with timm's names, as ``benchmarks/convert_encoder_weights.py`` writes it.

        Raises
        ------
        NetworkNeededError
            When published weights cannot be had.
        AtomVisionError
            When a file is missing, damaged or of another network.
        """
        encoder = self.network.encoder
        wanted = encoder.model if self.arguments["encoder"].startswith("tu-") else encoder
        found = self._published() if weights == "imagenet" else _read(Path(weights))
        state = wanted.state_dict()
        first = next(iter(state))
        if first in found and found[first].ndim == 4 and found[first].shape[1] == 3 != len(self.views):
            # As timm does for other numbers of channels: the colours again and again, scaled.
            found[first] = adapt_input_conv(len(self.views), found[first])
        wrong = [
            name for name, value in state.items() if name not in found or found[name].shape != value.shape
        ]
        if wrong:
            raise AtomVisionError(
                f"{weights} holds no weights of {self.arguments['encoder']} with {len(self.views)} channels: "
                f"{wrong[0]} is missing or of another shape ({len(wrong)} of {len(state)} are)"
            )
        # A file may go on behind the last stage that is used.
        wanted.load_state_dict({name: found[name] for name in state})
        return f"ImageNet ({weights if weights == 'imagenet' else Path(weights).name})"

    def load_trained(self, segmenter: str) -> str:
        """Start from the weights of a trained segmenter of the same shape; return in words which.

        Parameters
        ----------
        segmenter
            Folder or Hub id, as of `from_pretrained`.

        Raises
        ------
        UsageError
            When it has other arguments.
        """
        other = Segmenter.from_pretrained(segmenter)
        if other.arguments != self.arguments:
            name = next(key for key, value in self.arguments.items() if other.arguments.get(key) != value)
            raise UsageError(
                f"{segmenter} has {name}={other.arguments.get(name)}, not {self.arguments[name]}; "
                f"set model.{name} or go on from another"
            )
        self.load_state_dict(other.state_dict())
        return f"a trained segmenter ({Path(segmenter).name})"

    def _published(self) -> dict[str, Tensor]:
        name = self.arguments["encoder"]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                pretrained = smp.encoders.get_encoder(
                    name, in_channels=len(self.views), depth=self.arguments["depth"], weights="imagenet"
                )
        except (OSError, RuntimeError, ValueError, KeyError) as problem:
            raise NetworkNeededError(
                f"the published weights of {name} cannot be had ({type(problem).__name__}); connect to the "
                "network, or set model.encoder_weights to a safetensors file or null"
            ) from None
        state: dict[str, Tensor] = (pretrained.model if name.startswith("tu-") else pretrained).state_dict()
        return state


def _drop_unused(encoder: torch.nn.Module) -> None:
    """Remove stages behind the last one whose output is used: timm's EfficientNets keep and compute them."""
    model: Any = getattr(encoder, "model", None)
    last = model.feature_info.module_name()[-1] if hasattr(model, "feature_info") else ""
    kind, _, index = last.partition(".")
    if kind == "blocks" and index.isdigit():
        del model.blocks[int(index) + 1 :]


def _check_encoder(name: str) -> None:
    known = [f"tu-{found}" for found in timm.list_models()] + list(smp.encoders.get_encoder_names())
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        hint = f"; near: {', '.join(near)}" if near else ""
        raise UsageError(f"segmentation-models-pytorch {smp.__version__} knows no encoder {name!r}{hint}")


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise AtomVisionError(
            f"there is no file {path}; give safetensors, imagenet (from the network) or null (from scratch)"
        )
    try:
        found: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as problem:
        raise AtomVisionError(f"{path} is no safetensors file: {str(problem).splitlines()[0]}") from None
    return found
