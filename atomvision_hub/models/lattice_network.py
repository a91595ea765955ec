"""A network that tells the plane lattice of an image, as transformers' pipelines run it.

    import atomvision_hub.models.lattice_network  # tells transformers what an atomvision_lattice is
    pipeline("image-classification", model=PATH)

The image becomes a set of candidates for lattice translations (`translations`, fixed). A small transformer
looks at them as a set: attention between two of them knows what their lengths and directions make (equal
lengths, right angles, thirds of a turn, half-way projections), and the answer is pooled over all pairs, each
of which might span the lattice. So it is blind to rotation, mirroring, contrast and the order of candidates
by construction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    CLIPImageProcessor,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import ImageClassifierOutput

from atomvision_hub.errors import UsageError
from atomvision_hub.models.translations import FEATURES, IMAGE_FEATURES, Translations, find_translations

_PAIR_FEATURES = 14


class LatticeConfig(PreTrainedConfig):  # type: ignore[misc]
    """Shape of a `LatticeNetwork`.

    Parameters
    ----------
    candidates, spanning
        Translations that are looked at, and how many of the best may span the lattice.
    width, layers, heads
        Of the transformer.
    pair_width
        Of the network that looks at two candidates.
    atomvision
        Facts of ours kept in ``config.json``, e.g. the pixel sizes seen in training.
    """

    model_type = "atomvision_lattice"

    def __init__(
        self,
        candidates: int = 40,
        spanning: int = 20,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
        pair_width: int = 48,
        atomvision: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self.candidates, self.spanning = candidates, spanning
        self.width, self.layers, self.heads, self.pair_width = width, layers, heads, pair_width
        self.atomvision = dict(atomvision or {})
        super().__init__(**settings)


def pair_features(first: Tensor, second: Tensor, side: Tensor) -> Tensor:
    """Return what two translations make, blind to rotation, sign and order: (..., _PAIR_FEATURES).

    Parameters
    ----------
    first, second
        (..., 2), px.
    side
        Shorter side of the view, px; broadcast to (...,).
    """
    lengths = torch.stack([torch.linalg.vector_norm(one, dim=-1).clamp(min=1.0) for one in (first, second)])
    a, b = lengths.amin(0), lengths.amax(0)
    along = (first * second).sum(-1).abs()
    across = (first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0]).abs()
    ratio = (b / a).log()
    cosine = along / (a * b)
    # 0: rectangle; 1: the longer one ends half-way over the shorter one; whole numbers repeat.
    projection = 2 * along / a.square()
    half_way = (projection - 1).abs()
    near = [(ratio, 0.01), (ratio, 0.05), (cosine, 0.01), (cosine, 0.05), (half_way, 0.02), (half_way, 0.1)]
    near += [(cosine - 0.5, 0.01), (cosine - 0.5, 0.05)]
    area = (across / side.square()).clamp(min=1e-5).log2() / 4
    plain = [ratio, cosine, projection.clamp(max=4) / 2, area, (across / (a * b)), (b / side).log2() / 4]
    return torch.stack([*(torch.tanh(value / width) for value, width in near), *plain], -1)


class _Layer(nn.Module):
    """A transformer's layer whose attention is biased by pairs."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.ask, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.inner = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, tokens: Tensor, bias: Tensor) -> Tensor:
        batch, count, width = tokens.shape
        asked = self.ask(self.before(tokens)).reshape(batch, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = asked.unbind(0)
        found = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype))
        tokens = tokens + self.out(found.transpose(1, 2).reshape(batch, count, width))
        changed: Tensor = tokens + self.inner(self.between(tokens))
        return changed


class LatticeNetwork(PreTrainedModel):  # type: ignore[misc]
    """Lattice class of an image from the translations that nearly repeat it."""

    #: Name of the kind in ``facts.json``, which decides the layout of the card.
    kind: ClassVar[str] = "lattice"

    config_class = LatticeConfig
    main_input_name = "pixel_values"

    def __init__(self, config: LatticeConfig) -> None:
        super().__init__(config)
        width, heads, layers, pair = config.width, config.heads, config.layers, config.pair_width
        # Of candidates and pairs, so that features of all sizes start alike.
        self.scale_candidate, self.scale_image = nn.BatchNorm1d(FEATURES), nn.BatchNorm1d(IMAGE_FEATURES)
        self.candidate = nn.Sequential(nn.Linear(FEATURES, width), nn.GELU(), nn.Linear(width, width))
        self.image = nn.Sequential(nn.Linear(IMAGE_FEATURES, width), nn.GELU(), nn.Linear(width, width))
        self.bias = nn.Sequential(
            nn.Linear(_PAIR_FEATURES, 2 * heads * layers),
            nn.GELU(),
            nn.Linear(2 * heads * layers, heads * layers),
        )
        self.layers = nn.ModuleList(_Layer(width, heads) for _ in range(layers))
        self.after = nn.LayerNorm(width)
        self.shorter, self.longer = nn.Linear(width, pair), nn.Linear(width, pair, bias=False)
        self.pair = nn.Linear(_PAIR_FEATURES, pair, bias=False)
        self.judge = nn.Sequential(nn.GELU(), nn.Linear(pair, pair), nn.GELU())
        self.weigh, self.value = nn.Linear(pair, heads), nn.Linear(pair, pair)
        self.answer = nn.Sequential(
            nn.Linear(heads * pair + width, width), nn.GELU(), nn.Linear(width, config.num_labels)
        )
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        # PyTorch's own start is the one that training was designed with.
        return

    def translations(self, pixel_values: Tensor) -> Translations:
        """Return what the network is told of images, float (batch, channel, row, column) of any scale.

        Raises
        ------
        UsageError
            When these are no images.
        """
        shape = tuple(pixel_values.shape)
        if len(shape) != 4 or shape[1] not in (1, 3) or min(shape[2:]) < 32 or shape[0] == 0:
            raise UsageError(
                "the lattice network takes images [batch, 1 or 3, row, column] of at least 32 x 32, "
                f"not {shape}"
            )
        return find_translations(pixel_values.float().mean(1), self.config.candidates)

    def forward(
        self, pixel_values: Tensor | None = None, labels: Tensor | None = None, **_: Any
    ) -> ImageClassifierOutput:
        """Return logits (batch, classes), and the mean cross-entropy where `labels` are given."""
        if pixel_values is None:
            raise UsageError("the lattice network takes pixel_values [batch, channel, row, column]")
        logits = self.judge_translations(self.translations(pixel_values))
        loss = None if labels is None else nn.functional.cross_entropy(logits.float(), labels)
        return ImageClassifierOutput(loss=loss, logits=logits)

    def judge_translations(self, found: Translations) -> Tensor:
        """Return the logits (batch, classes) of images whose translations were found before."""
        batch, count = found.valid.shape
        vectors, valid = found.vectors, found.valid
        scaled = self.scale_candidate(found.features.reshape(-1, FEATURES)).reshape(batch, count, FEATURES)
        tokens = self.candidate(scaled)
        whole = self.image(self.scale_image(found.image))
        tokens = torch.cat([whole[:, None], tokens], 1)
        there = torch.cat([torch.ones_like(valid[:, :1]), valid], 1)

        side = (2 ** found.image[:, -1])[:, None]
        first, second = torch.triu_indices(count, count, 1, device=vectors.device)
        pairs = pair_features(vectors[:, first], vectors[:, second], side)
        # Attention: the same bias both ways, none for the image's token.
        biases = self.bias(pairs)
        square = biases.new_zeros(batch, count + 1, count + 1, biases.shape[-1])
        square[:, first + 1, second + 1] = biases
        square[:, second + 1, first + 1] = biases
        mask = torch.where(there, 0.0, -1e4)[:, None, None, :]
        parts = square.permute(0, 3, 1, 2).chunk(len(self.layers), 1)
        for layer, part in zip(self.layers, parts, strict=True):
            tokens = layer(tokens, part + mask)
        tokens = self.after(tokens)
        # Pairs of the best candidates, the shorter one first.
        best = (second < self.config.spanning).nonzero()[:, 0]
        first, second = first[best], second[best]
        length = torch.linalg.vector_norm(vectors, dim=-1)
        ordered = (length[:, first] <= length[:, second])[..., None]
        short, long = self.shorter(tokens[:, 1:]), self.longer(tokens[:, 1:])
        both = torch.where(ordered, short[:, first] + long[:, second], short[:, second] + long[:, first])
        judged = self.judge(both + self.pair(pairs[:, best]))
        usable = valid[:, first] & valid[:, second]
        weights = self.weigh(judged).float().masked_fill(~usable[..., None], -1e4).softmax(1)
        pooled = torch.einsum("bph,bpv->bhv", weights.to(judged.dtype), self.value(judged)).flatten(1)
        logits: Tensor = self.answer(torch.cat([pooled, tokens[:, 0]], -1))
        return logits


def make_lattice_network(
    labels: Sequence[str], *, atomvision: Mapping[str, Any] | None = None, **settings: Any
) -> LatticeNetwork:
    """Return a new network for classes in the order of the logits; `settings` as of `LatticeConfig`."""
    names = dict(enumerate(labels))
    return LatticeNetwork(
        LatticeConfig(
            id2label=names,
            label2id={name: index for index, name in names.items()},
            atomvision=atomvision,
            **settings,
        )
    )


def image_processor(side: int = 256) -> CLIPImageProcessor:
    """Return what makes tensors of pictures: the shorter side to `side` pixels, the central square of them.

    Never squashed, and images of `side` x `side` stay as they are: pixels resampled by less than a whole
    factor repeat less exactly.
    """
    return CLIPImageProcessor(
        do_resize=True,
        size={"shortest_edge": side},
        do_center_crop=True,
        crop_size={"height": side, "width": side},
        do_rescale=True,
        do_normalize=False,
        do_convert_rgb=True,
    )


AutoConfig.register(LatticeConfig.model_type, LatticeConfig)
AutoModelForImageClassification.register(LatticeConfig, LatticeNetwork)
