"""Super-resolution: judging enlarged images, by the atoms that are lost, invented or moved too."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage
from scipy.spatial import cKDTree

from atomvision_hub.analysis.atom_scores import TrueColumns, score_atoms, true_columns
from atomvision_hub.analysis.atoms import COLUMN_WIDTH, detect_atoms
from atomvision_hub.engine.workers import cores, worker_pool

Array = npt.NDArray[np.float32]
Table = npt.NDArray[np.float64]

#: Widths (px of the low resolution) among which validation picks that of the smoothed baseline.
SMOOTHINGS = (0.0, 0.4, 0.6, 0.8, 1.0, 1.3, 1.6)
_SCORES = ("psnr", "ssim", "right", "missed", "false", "squares")
_PARALLEL = 300  # images below which starting processes does not pay


@dataclass(frozen=True)
class Scene:
    """What an enlarged image is compared with.

    Attributes
    ----------
    truth
        High resolution, grey 0..1 [row, column].
    columns
        Columns of atoms in it; None where atoms are not scored.
    pixel_size
        Of `truth`, Å/px along (rows, columns).
    """

    truth: Array
    columns: TrueColumns | None = None
    pixel_size: tuple[float, float] | None = None


def columns_of_row(
    atoms: Mapping[str, Any],
    shape: tuple[int, int],
    pixel_size: tuple[float, float],
    z_exponent: float,
    corner: tuple[int, int] = (0, 0),
) -> TrueColumns:
    """Return the columns in a part of a row's image that begins at `corner` (x, y, in px)."""
    moved = {name: np.asarray(values) for name, values in atoms.items()}
    moved |= {"x": moved["x"] - corner[0], "y": moved["y"] - corner[1]}
    return true_columns(moved, shape, pixel_size, z_exponent)


def columns_found(truth: Array, pixel_size: tuple[float, float]) -> TrueColumns:
    """Return the columns that are found in a high-resolution image, where nobody tells the true ones."""
    found = detect_atoms(truth, pixel_size)
    positions = found.positions()
    distance = np.full(len(found), np.inf)
    if len(found) > 1:
        distance = cKDTree(positions).query(positions, k=2)[0][:, 1]
    peak = found.amplitude / max(float(found.amplitude.max(initial=0)), 1e-12)
    return TrueColumns(positions, peak, np.ones(len(found), bool), distance)


def judge_image(image: Array, scene: Scene) -> list[float]:
    """Return PSNR (dB), SSIM, atoms right, missed and false, and the sum of squared errors of position (Å²).

    PSNR and SSIM for grey levels 0..1; SSIM with Gaussian weights of 1.5 px as Wang et al. defined it (IEEE
    Trans. Image Process. 13, 600 (2004), doi 10.1109/TIP.2003.819861). Columns within one standard deviation
    of an ideal column's profile of the edge, where half of it is cut off, do not count.
    """
    from skimage.metrics import structural_similarity

    image = np.clip(image, 0, 1)
    error = max(float(np.mean((image.astype(np.float64) - scene.truth) ** 2)), 1e-10)
    similar = structural_similarity(
        scene.truth, image, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    scores = [-10 * math.log10(error), float(similar)]
    if scene.columns is None or scene.pixel_size is None:
        return scores + [math.nan] * 4
    dy, dx = scene.pixel_size
    found = detect_atoms(image, scene.pixel_size).positions()
    view = (scene.truth.shape[0] * dy, scene.truth.shape[1] * dx)
    atoms = score_atoms(found, scene.columns, border=COLUMN_WIDTH, field_of_view=view)
    return [*scores, atoms.right, atoms.missed, atoms.false, atoms.squares]


def _judge_pair(pair: tuple[Array, Scene]) -> list[float]:
    return judge_image(*pair)


def judge_images(
    methods: Mapping[str, Array], scenes: Sequence[Scene], workers: int | None = None
) -> dict[str, Table]:
    """Judge the images [n, row, column] of every method; return scores [n, 6] by method.

    Parameters
    ----------
    methods
        Images by the method that made them.
    scenes
        What they are compared with.
    workers
        Processes; all cores up to 8 by default, one for few images.
    """
    pairs = [
        (image, scene) for images in methods.values() for image, scene in zip(images, scenes, strict=True)
    ]
    if workers is None:
        workers = min(8, cores()) if len(pairs) >= _PARALLEL else 1
    if workers > 1:
        with worker_pool(workers) as pool:
            found = list(pool.map(_judge_pair, pairs, chunksize=16))
    else:
        found = [judge_image(*pair) for pair in pairs]
    table = np.array(found, dtype=float).reshape(len(methods), len(scenes), len(_SCORES))
    return dict(zip(methods, table, strict=True))


def enlarge_all(low: Array, kind: Image.Resampling, smoothing: float = 0.0) -> Array:
    """Return images [n, row, column] four times as large by interpolation, smoothed first (Gaussian, px)."""
    from atomvision_hub.models.super_resolution import SCALE

    if smoothing:
        low = ndimage.gaussian_filter(low, (0, smoothing, smoothing), mode="nearest")
    rows, columns = low.shape[1:]
    size = (SCALE * columns, SCALE * rows)
    return np.stack([np.asarray(Image.fromarray(one).resize(size, kind)) for one in low])


def choose_smoothing(low: Array, truth: Array) -> float:
    """Return the smoothing with the highest mean PSNR of the bicubic enlargement, on validation images."""

    def quality(width: float) -> float:
        made = np.clip(enlarge_all(low, Image.Resampling.BICUBIC, width), 0, 1)
        errors = ((made.astype(np.float64) - truth) ** 2).mean(axis=(1, 2))
        return float(-np.log10(np.maximum(errors, 1e-10)).mean())

    return max(SMOOTHINGS, key=quality)


def simple_methods(low: Array, smoothing: float) -> dict[str, Array]:
    """Return the enlargements that need no learning, by name."""
    methods = {
        "bicubic": enlarge_all(low, Image.Resampling.BICUBIC),
        "lanczos": enlarge_all(low, Image.Resampling.LANCZOS),
    }
    if smoothing:
        methods["smoothed_bicubic"] = enlarge_all(low, Image.Resampling.BICUBIC, smoothing)
    return methods


#: Figure -> unit and how it follows from sums of the scores and the number of images.
_FIGURES: dict[str, tuple[str, Callable[[Table], Table]]] = {
    "psnr": ("dB", lambda s: s[..., 0] / s[..., 6]),
    "ssim": ("1", lambda s: s[..., 1] / s[..., 6]),
    "missing_atoms": ("1", lambda s: s[..., 3] / (s[..., 2] + s[..., 3])),
    "hallucinated_atoms": ("1", lambda s: s[..., 4] / (s[..., 2] + s[..., 4])),
    "position_error": ("Å", lambda s: np.sqrt(s[..., 5] / s[..., 2])),
}
_NOTES = {
    "psnr": "Mean over the images, grey levels 0..1.",
    "ssim": "Mean over the images, grey levels 0..1.",
    "missing_atoms": "Share of the resolvable columns (nearest one 1.2 Å away or more, peak at least 5 % of "
    "the brightest, half an Å or more from the edge) without a detection within 0.5 Å.",
    "hallucinated_atoms": "Share of the detections with no column within 0.5 Å.",
    "position_error": "Root mean square of right detections.",
}


def summarise(
    scores: Table, groups: npt.NDArray[Any] | None = None, *, draws: int = 1000, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Return value, unit, n and 95 % interval of every figure that the scores [n, 6] tell.

    The interval is that of a bootstrap which draws whole `groups` (one entry a row; materials), seeded; `n`
    counts images.
    """
    members = np.arange(len(scores)) if groups is None else np.unique(groups, return_inverse=True)[1]
    result: dict[str, dict[str, Any]] = {}
    generator = np.random.default_rng(seed)
    for part in (("psnr", "ssim"), ("missing_atoms", "hallucinated_atoms", "position_error")):
        judged = ~np.isnan(scores[:, 0 if "psnr" in part else 2])
        if not judged.any():
            continue
        rows = np.column_stack([np.nan_to_num(scores[judged]), np.ones(int(judged.sum()))])
        names, inside = np.unique(members[judged], return_inverse=True)
        sums = np.zeros((len(names), rows.shape[1]))
        np.add.at(sums, inside, rows)
        times = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
        drawn = times.astype(float) @ sums
        for name in part:
            unit, figure = _FIGURES[name]
            with np.errstate(divide="ignore", invalid="ignore"):
                value, spread = float(figure(sums.sum(0))), figure(drawn)
            spread = spread[np.isfinite(spread)]
            interval = np.quantile(spread, [0.025, 0.975]).tolist() if len(spread) else None
            result[name] = {
                "value": value if math.isfinite(value) else None,
                "unit": unit,
                "n": int(judged.sum()),
                "interval": interval,
                "note": _NOTES[name],
            }
            if groups is not None:
                result[name]["groups"] = len(names)
    return result


def metric_facts(
    scores: Mapping[str, Table], model: str, groups: npt.NDArray[Any] | None
) -> dict[str, dict[str, Any]]:
    """Return the figures of one method with those of the others as its baselines, as a card wants them."""
    found = {method: summarise(table, groups) for method, table in scores.items()}
    return {
        name: result
        | {"baselines": {m: found[m][name]["value"] for m in scores if m != model and name in found[m]}}
        for name, result in found[model].items()
    }


def method_rows(scores: Mapping[str, Table]) -> list[list[Any]]:
    """Return a row for every method, with the entries of `METHOD_COLUMNS`."""
    rows = []
    for method, table in scores.items():
        figures = summarise(table, draws=1)
        values = [figures[name]["value"] if name in figures else None for name in _FIGURES]
        shares = [None if value is None else 100 * value for value in values[2:4]]
        rows.append([method.replace("_", " "), *values[:2], *shares, values[4]])
    return rows


#: Heads of the columns of `method_rows`.
METHOD_COLUMNS = ("method", "PSNR (dB)", "SSIM", "missing (%)", "hallucinated (%)", "position error (Å)")
