"""How autoencoders are judged: beside linear codes of the same length, over dose, rotation and pixel size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from atomvision_hub._files import atomic_path
from atomvision_hub.analysis.embedding import label_agreement
from atomvision_hub.analysis.linear_codes import LINEAR_KINDS, LinearCode, LinearCodes
from atomvision_hub.engine.augment import sample
from atomvision_hub.engine.data import Source
from atomvision_hub.engine.metrics import proportion
from atomvision_hub.engine.tasks.autoencoder import elbo, reduce
from atomvision_hub.models.autoencoder import Autoencoder, VariationalAutoencoder

Array = npt.NDArray[np.float64]
#: Doses of the presets `good`, `typical` and `poor` of `simulation.acquisition`, detected electrons/Å².
DOSES = (5000.0, 500.0, 50.0)
#: Degrees; the crystals lie at angles of their own already.
ANGLES = (0.0, 15.0, 30.0, 45.0)
#: Pixel size relative to the whole view's.
ZOOMS = (1.0, 0.9, 0.8, 0.7)
#: Variance of a mean code over the rows above which a number is in use (Burda et al. 2016, arXiv 1509.00519).
ACTIVE = 0.01
_MOST_FITTED = 20_000  # training rows that linear codes are fitted on
_SHOWN = 6
_NAMES = {"mean": "mean image", "dct": "DCT", "pca": "PCA"}


class Methods:
    """The network and the linear codes of the same length, each of which gives images back.

    Parameters
    ----------
    model
        Trained, in evaluation mode or not.
    train
        Training images as the network sees them, [n, 1, size, size].
    """

    def __init__(self, model: Autoencoder, train: Tensor) -> None:
        self.model = model.eval()
        step = math.ceil(len(train) / _MOST_FITTED)
        codes = LinearCodes(train[::step, 0].numpy())
        self.codes: dict[str, LinearCode] = {
            kind: codes.fit(kind, 0 if kind == "mean" else model.latent) for kind in LINEAR_KINDS
        }

    @torch.inference_mode()
    def images(self, given: Tensor) -> dict[str, Array]:
        """Return what each method makes of images [n, 1, size, size], clipped to 0..1: [n, size, size]."""
        device = next(self.model.parameters()).device
        parts = [self.model.reconstruct(part.to(device)).cpu() for part in torch.split(given, 256)]
        found = {"network": torch.cat(parts)[:, 0].double().numpy()}
        flat = given[:, 0].double().numpy()
        return found | {kind: code.reconstruct(flat).clip(0, 1) for kind, code in self.codes.items()}

    def errors(self, given: Tensor, truth: Tensor | None = None) -> dict[str, Array]:
        """Return the mean squared error of every image by method; against `truth` where that is another."""
        wanted = (given if truth is None else truth)[:, 0].double().numpy()
        found = self.images(given)
        return {name: ((images - wanted) ** 2).mean((1, 2)) for name, images in found.items()}


def mean_interval(
    values: Array, groups: Sequence[Any] | None = None, *, draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of a mean, seeded; whole `groups` are drawn where given."""
    members = np.arange(len(values)) if groups is None else np.unique(groups, return_inverse=True)[1]
    sums, sizes = np.bincount(members, values), np.bincount(members)
    picks = np.random.default_rng(seed).integers(0, len(sums), (draws, len(sums)))
    low, high = np.quantile(sums[picks].sum(1) / sizes[picks].sum(1), [0.025, 0.975])
    return float(low), float(high)


def report(
    model: Autoencoder,
    source: Source,
    train: Tensor,
    test: Tensor,
    scores: Mapping[str, Tensor],
    folder: Path,
    seed: int,
) -> dict[str, Any]:
    """Return metrics, tables, figures and notes of a finished run, and draw its pictures.

    Parameters
    ----------
    train
        Training images as the network sees them, [n, 1, size, size].
    test
        Test images as they were decoded, uint8 [n, 1, side, side].
    scores
        Of `score_rows` of the test rows.
    folder
        Of the pictures.
    seed
        Of noise.
    """
    methods = Methods(model, train)
    given = reduce(test, model.size)
    errors = methods.errors(given)
    errors["network"] = scores["error"].double().numpy()
    columns = source.splits["test"].columns
    groups = columns.get("material_id")
    known: dict[str, Any] = {"n": len(given)}
    if groups is not None and len(set(groups)) < len(given):
        known["groups"] = len(set(groups))
    metrics = _metrics(methods, given, errors, groups, known)
    if isinstance(model, VariationalAutoencoder):
        metrics |= _variational(model, given, scores, groups, known)
    if "lattice_projected" in columns:
        metrics["lattice_agreement"] = _agreement(methods, given, columns["lattice_projected"])
    figures = [{"file": "curves.png", "caption": "Loss over the epochs, and validation."}]
    caption = (
        "Test images, what the network and linear codes of the same length make of them, in one grey scale."
    )
    draw_reconstructions(methods, given, errors, folder / "reconstructions.png")
    figures.append({"file": "reconstructions.png", "caption": caption})
    if isinstance(model, VariationalAutoencoder):
        draw_samples(model, folder / "samples.png", seed)
        caption = (
            f"Images drawn from the standard normal distribution of the code, seed {seed}, not selected."
        )
        figures.append({"file": "samples.png", "caption": caption})
    return {
        "metrics": {"test": metrics},
        "tables": _robustness(methods, test, columns.get("pixel_size"), seed),
        "figures": figures,
        "notes": _notes(model, methods, test),
    }


def _metrics(
    methods: Methods, given: Tensor, errors: dict[str, Array], groups: Any, known: dict[str, Any]
) -> dict[str, Any]:
    mean = {name: float(values.mean()) for name, values in errors.items()}
    low, high = mean_interval(errors["network"], groups)
    variance = float((given - given.mean()).double().square().mean())
    peers = {_NAMES[kind]: mean[kind] for kind in LINEAR_KINDS}
    strongest = min(LINEAR_KINDS, key=lambda kind: mean[kind])
    better = proportion(errors["network"] < errors[strongest], None if groups is None else np.asarray(groups))
    return {
        "mse": {
            "value": mean["network"],
            "unit": "grey²",
            "interval": [low, high],
            "baselines": peers,
            "note": "mean squared error of grey levels 0..1, all methods clipped to that range",
            **known,
        },
        "psnr": {
            "value": _decibel(mean["network"]),
            "unit": "dB",
            "interval": [_decibel(high), _decibel(low)],
            "baselines": {name: _decibel(value) for name, value in peers.items()},
            "note": "of the mean squared error over all rows",
            **known,
        },
        "variance_explained": {
            "value": 1 - mean["network"] / variance,
            "unit": "1",
            "interval": [1 - high / variance, 1 - low / variance],
            "baselines": {name: 1 - value / variance for name, value in peers.items()},
            **known,
        },
        "better_than_the_strongest_baseline": {
            **better,
            "note": f"share of the rows on which the error is smaller than that of {_NAMES[strongest]}",
        },
    }


def _decibel(error: float) -> float:
    return -10 * math.log10(max(error, 1e-12))


def _variational(
    model: VariationalAutoencoder,
    given: Tensor,
    scores: Mapping[str, Tensor],
    groups: Any,
    known: dict[str, Any],
) -> dict[str, Any]:
    variance = float(model.pixel_variance)
    bound = elbo(dict(scores), variance, model.size**2).numpy()
    apart = scores["divergence"].double().numpy()
    spread = _encode(model, given).var(axis=0)
    return {
        "elbo": {
            "value": float(bound.mean()),
            "unit": "nats/pixel",
            "interval": list(mean_interval(bound, groups)),
            "note": "evidence lower bound of the density of grey levels 0..1, one draw of the code a row, "
            f"pixels normal with a standard deviation of {variance**0.5:.4f}, fitted on the validation rows",
            **known,
        },
        "kl_divergence": {
            "value": float(apart.mean()),
            "unit": "nats",
            "interval": list(mean_interval(apart, groups)),
            **known,
        },
        "active_units": {
            "value": float((spread > ACTIVE).sum()),
            "unit": "numbers",
            "note": f"of {model.latent}: variance of the mean code over the test rows above {ACTIVE}",
            **known,
        },
    }


def _encode(model: Autoencoder, given: Tensor) -> Array:
    device = next(model.parameters()).device
    with torch.inference_mode():
        codes = torch.cat([model.encode(part.to(device)).cpu() for part in torch.split(given, 256)])
    return np.asarray(codes.double().numpy())


def _agreement(methods: Methods, given: Tensor, labels: Sequence[Any]) -> dict[str, Any]:
    """Return how often neighbouring codes are of one lattice."""
    k = min(10, len(given) - 1)
    found = label_agreement(_encode(methods.model, given), np.asarray(labels), k=k)
    peers = {
        _NAMES[kind]: label_agreement(methods.codes[kind].encode(given[:, 0].numpy()), labels, k=k).value
        for kind in ("dct", "pca")
    }
    return {
        "value": found.value,
        "unit": "1",
        "n": found.n,
        "baselines": peers | {"chance": found.chance},
        "note": f"mean share of the {k} nearest codes that belong to the same projected lattice",
    }


def _robustness(
    methods: Methods, test: Tensor, pixel_sizes: Sequence[Any] | None, seed: int
) -> list[dict[str, Any]]:
    size = methods.model.size
    columns = ["network", *LINEAR_KINDS]
    heads = ["network", *(_NAMES[kind] for kind in LINEAR_KINDS)]

    def row(first: str, given: Tensor, truth: Tensor | None = None) -> list[Any]:
        errors = methods.errors(given, truth)
        return [first, *(float(f"{errors[name].mean():.4g}") for name in columns)]

    def turned(angle: float, side: float) -> Tensor:
        turn = math.radians(angle)
        cosine, sine = side * math.cos(turn), side * math.sin(turn)
        one = torch.tensor([[cosine, -sine, 0.0], [sine, cosine, 0.0]])
        fine = [
            sample(part.float() / 255, one.expand(len(part), 2, 3), 2 * size)
            for part in torch.split(test, 256)
        ]
        return functional.avg_pool2d(torch.cat(fine), 2)

    tables = []
    if pixel_sizes is not None:
        clean = reduce(test, size)
        area = torch.tensor(np.prod(np.asarray(pixel_sizes, dtype=float), axis=1), dtype=torch.float32)
        rows = [row("no noise", clean)]
        rows += [row(f"{dose:g}", _noisy(test, area, dose, size, seed), clean) for dose in DOSES]
        tables.append(
            {
                "title": "Error over the dose",
                "columns": ["dose (electrons/Å²)", *heads],
                "rows": rows,
                "note": "Mean squared error against the image without noise; Poisson noise on the pixels of "
                "the dataset, grey level 0 taken as no electrons. Trained without noise.",
            }
        )
    # Below 1/sqrt(2) of the view a crop fits at any angle.
    tables.append(
        {
            "title": "Error over a rotation",
            "columns": ["rotation (°)", *heads],
            "rows": [row(f"{angle:g}", turned(angle, 0.7)) for angle in ANGLES],
            "note": "Of the central 70 % of the view, turned in addition to the pose of the row.",
        }
    )
    tables.append(
        {
            "title": "Error over the pixel size",
            "columns": ["relative pixel size", *heads],
            "rows": [row(f"{zoom:g}", turned(0.0, zoom)) for zoom in ZOOMS],
            "note": "The centre of the view at finer pixels, 1 is the whole view.",
        }
    )
    return tables


def _noisy(test: Tensor, area: Tensor, dose: float, size: int, seed: int) -> Tensor:
    """Return test images with the counting noise of a dose, as the network sees them."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for part, pixel in zip(torch.split(test, 256), torch.split(area, 256), strict=True):
        levels = part.float() / 255
        electrons = (dose * pixel / levels.mean((1, 2, 3)).clamp(min=1e-6))[:, None, None, None]
        counts = torch.poisson(levels * electrons, generator=generator)
        found.append(functional.adaptive_avg_pool2d(counts / electrons, size))
    # A pixel of few electrons may lie far above white.
    return torch.cat(found).clamp(0, 2)


def _notes(model: Autoencoder, methods: Methods, test: Tensor) -> list[str]:
    seen = (
        f"The network sees {model.size} x {model.size} pixels: the central square of an image, averaged over "
        f"areas (the test images have {test.shape[-1]} pixels a side). The reference implementation "
        "(usnistgov/atomvision, train_autoencoder.py) took 224 x 224 pixels and fully connected layers."
    )
    peers = (
        f"Baselines, each of {model.latent} numbers beside the mean image: {methods.codes['pca'].rule}; "
        f"{methods.codes['dct'].rule} (the rule that leaves less of the training rows), fitted likewise."
    )
    return [seen, peers, "Trained on clean images of perfect crystals; defects were not measured."]


def in_words(found: Mapping[str, Any]) -> str:
    """Return the scores of a `report` in one line."""
    error = found["metrics"]["test"]["mse"]
    peers = ", ".join(f"{name} {value:.3g}" for name, value in error["baselines"].items())
    low, high = error["interval"]
    return f"mse {error['value']:.3g} ({low:.3g} to {high:.3g}, n = {error['n']}; {peers})"


def _save(figure: Any, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})


def draw_history(history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw errors over the epochs as PNG, and the divergence of a variational autoencoder."""
    from matplotlib.figure import Figure

    variational = "validation_divergence" in history[0]
    figure = Figure(figsize=(9 if variational else 5, 3.4), layout="constrained")
    panels = figure.subplots(1, 2 if variational else 1, squeeze=False)[0]
    epochs = [entry["epoch"] for entry in history]
    judged = "validation_mse" if variational else "validation_loss"
    panels[0].plot(epochs, [entry["training_mse"] for entry in history], label="training")
    panels[0].plot(epochs, [entry[judged] for entry in history], label="validation")
    panels[0].set(xlabel="epoch", ylabel="mean squared error", yscale="log")
    panels[0].legend(frameon=False)
    if variational:
        panels[1].plot(epochs, [-entry["validation_loss"] for entry in history], label="ELBO (nats/pixel)")
        panels[1].set(xlabel="epoch", ylabel="validation ELBO (nats/pixel)")
        other = panels[1].twinx()
        other.plot(epochs, [entry["validation_divergence"] for entry in history], color="C1")
        other.set_ylabel("divergence (nats)", color="C1")
    for axes in panels:
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    _save(figure, path)


def draw_reconstructions(methods: Methods, given: Tensor, errors: Mapping[str, Array], path: Path) -> None:
    """Draw test images, spread evenly over the network's error, above what each method makes of them."""
    from matplotlib.figure import Figure

    order = np.argsort(errors["network"], kind="stable")
    places = np.unique(np.linspace(0.05, 0.95, _SHOWN) * (len(order) - 1) + 0.5).astype(int)
    chosen = order[np.unique(places)]
    found = methods.images(given[torch.from_numpy(chosen)])
    rows = ["original", "network", "pca", "dct"]
    titles = {"original": "original", "network": methods.model.kind.replace("vae", "VAE"), **_NAMES}
    pictures = {"original": given[torch.from_numpy(chosen), 0].numpy(), **found}
    figure = Figure(figsize=(1.7 * len(chosen) + 0.4, 1.85 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), len(chosen), squeeze=False)
    for line, name in zip(panels, rows, strict=True):
        for place, (axes, index) in enumerate(zip(line, chosen, strict=True)):
            axes.imshow(pictures[name][place], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            if name != "original":
                axes.set_title(f"MSE {errors[name][index]:.2g}", fontsize=8)
        line[0].set_ylabel(titles[name])
    figure.suptitle(f"Codes of {methods.model.latent} numbers", fontsize=10)
    _save(figure, path)


def draw_samples(model: VariationalAutoencoder, path: Path, seed: int, side: int = 6) -> None:
    """Draw `side` x `side` images of `VariationalAutoencoder.sample`."""
    from matplotlib.figure import Figure

    images = model.sample(side * side, torch.Generator().manual_seed(seed)).cpu()[:, 0].float().numpy()
    figure = Figure(figsize=(1.3 * side, 1.3 * side), layout="constrained")
    for axes, image in zip(figure.subplots(side, side).ravel(), images, strict=True):
        axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_axis_off()
    _save(figure, path)


def draw_sweep(
    rows: Sequence[Mapping[str, float]], path: Path, *, error: str = "test mean squared error"
) -> None:
    """Draw the error over the length of the code.

    Parameters
    ----------
    rows
        One a run: ``latent``, ``network`` with its interval ``low`` and ``high``, and the error of each
        baseline under its name.
    error
        What the errors are, for the axis.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    lengths = [row["latent"] for row in rows]
    for name, style in zip(("PCA", "DCT", "mean image"), ("s--", "^--", ":"), strict=True):
        axes.plot(lengths, [row[name] for row in rows], style, label=name, alpha=0.8)
    values = np.array([row["network"] for row in rows])
    around = np.abs(np.array([[row["low"], row["high"]] for row in rows]).T - values)
    axes.errorbar(lengths, values, around, marker="o", capsize=3, label="autoencoder", color="black")
    axes.set(xscale="log", yscale="log", xlabel="numbers in the code", ylabel=error)
    axes.set_xticks(lengths, [f"{length:g}" for length in lengths])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    _save(figure, path)
