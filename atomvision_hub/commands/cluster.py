"""`atomvision cluster`: maps of a dataset by its pixels, its bond angles and what models make of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from atomvision_hub.errors import UsageError

if TYPE_CHECKING:
    from atomvision_hub.analysis.embedding import EmbeddedMap

#: Side of the images whose pixels are compared, px.
_PIXELS = 64
#: Images of a tiny map, and the fewest that make one.
_TINY, _FEWEST = 48, 12
Grey = npt.NDArray[np.uint8]


def cluster(
    dataset: Annotated[str, typer.Argument(help="Dataset folder or Hub id, such as build/stem2d.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="PNG to write.")] = Path("cluster.png"),
    config: Annotated[str | None, typer.Option("--config", "-c", help="Config of the dataset.")] = None,
    revision: Annotated[str | None, typer.Option(help="Tag of a dataset on the Hub.")] = None,
    split: Annotated[str, typer.Option(help="Which split; the models never saw 'test'.")] = "test",
    label: Annotated[str, typer.Option(help="Column of classes to colour by.")] = "lattice_projected",
    model: Annotated[
        list[str] | None,
        typer.Option(help="Another model to map by (classifier, autoencoder, alignn); repeat for several."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=_FEWEST, help="At most so many images, drawn.")] = None,
    perplexity: Annotated[float, typer.Option(min=2.0, help="Of t-SNE.")] = 30.0,
    k: Annotated[int, typer.Option("--neighbours", min=1, help="Neighbours of the figures.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw and of t-SNE.")] = 0,
    tiny: Annotated[bool, typer.Option("--tiny", help=f"{_TINY} images, in seconds.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Draw maps (t-SNE) of a dataset, coloured by lattice, and say how far to believe them.

    Three maps: of the pixels, of histograms of bond angles (found without a network), and of what the shipped
    classifier's last layer sees. Works offline.

    Example: atomvision cluster build/stem2d --config rotated --out cluster.png
    """
    from atomvision_hub._files import write_bytes
    from atomvision_hub.analysis.embedding import embed
    from atomvision_hub.analysis.map_picture import maps_picture
    from atomvision_hub.data.progress import Steps

    if out.suffix.lower() != ".png":
        raise UsageError(f"--out is a PNG, not {out.name}; write {out.with_suffix('.png').name}")
    images, sizes, labels, names = _read(dataset, config, revision, split, label, limit, seed, tiny)
    count = len(images)
    features: dict[str, npt.NDArray[Any]] = {"pixels": _pixels(images)}
    with Steps("bond angles", count, "images") as step:
        features["bond angles"], without = _bond_angles(images, sizes, step)
    if without:
        typer.echo(f"note: no bond angles in {without} of {count} images; they share one point", err=True)
    from atomvision_hub.inference.embeddings import embed_images

    for one in (None, *(model or ())):
        name = "shipped classifier" if one is None else f"{Path(one).name}"
        while name in features:
            name += "'"
        with Steps(name, count, "images") as step:
            features[name] = embed_images(images, one, pixel_sizes=sizes, progress=step)
    maps: dict[str, EmbeddedMap] = {}
    with Steps("t-SNE", len(features), "maps") as step:
        for name, values in features.items():
            maps[name] = embed(values, labels, perplexity=perplexity, k=k, seed=seed)
            step()
    title = f"{Path(dataset).name}, config {config or 'default'}, {split} split: {count:,} images by {label}"
    write_bytes(out, maps_picture(maps, labels, names, title))
    _tell(maps, features, out, as_json)


def _read(
    dataset: str,
    config: str | None,
    revision: str | None,
    split: str,
    label: str,
    limit: int | None,
    seed: int,
    tiny: bool,
) -> tuple[list[Grey], list[Any] | None, npt.NDArray[np.int64], list[str]]:
    """Return images, pixel sizes, classes and their names."""
    import datasets

    from atomvision_hub.data import load_dataset
    from atomvision_hub.models.images import to_8bit

    table = load_dataset(dataset, config, revision=revision, split=split)
    if "image" not in table.column_names:
        raise UsageError(f"{dataset} ({config or 'default'}) has no images; choose another --config")
    feature = table.features.get(label)
    if not isinstance(feature, datasets.ClassLabel):
        known = sorted(name for name, one in table.features.items() if isinstance(one, datasets.ClassLabel))
        raise UsageError(f"{dataset} has no class column {label!r}; --label may be: {', '.join(known)}")
    wanted = min(limit or len(table), _TINY if tiny else len(table))
    if len(table) < _FEWEST:
        raise UsageError(f"the {split} split has {len(table)} images; a map needs {_FEWEST} or more")
    if wanted < len(table):
        drawn = np.random.default_rng(seed).choice(len(table), wanted, replace=False)
        table = table.select(np.sort(drawn))
    images = [np.asarray(to_8bit(image).convert("L")) for image in table["image"]]
    sizes = list(table["pixel_size"]) if "pixel_size" in table.column_names else None
    return images, sizes, np.asarray(table[label], dtype=np.int64), list(feature.names)


def _pixels(images: list[Grey]) -> npt.NDArray[np.float64]:
    """Return the grey levels of the central squares, averaged over areas, [n, pixels]."""
    from PIL import Image

    found = []
    for image in images:
        short = min(image.shape)
        top, left = ((side - short) // 2 for side in image.shape)
        square = Image.fromarray(image[top : top + short, left : left + short])
        found.append(np.asarray(square.resize((_PIXELS, _PIXELS), Image.Resampling.BOX)).ravel() / 255)
    return np.stack(found)


def _bond_angles(
    images: list[Grey], sizes: list[Any] | None, step: Any
) -> tuple[npt.NDArray[np.float32], int]:
    """Return histograms of bond-angle cosines [n, 200], and how many images have none."""
    from atomvision_hub.analysis import AnalysisError, bond_angle_histogram, detect_atoms, radius_graph

    if sizes is None:
        raise UsageError("bond angles need pixel sizes, and this dataset has no column pixel_size")
    found = []
    for image, size in zip(images, sizes, strict=True):
        try:
            graph = radius_graph(detect_atoms(image, tuple(size)).positions())
            found.append(bond_angle_histogram(graph.line_graph(), bins=200))
        except AnalysisError:  # no columns of the expected width
            found.append(np.zeros(200, np.float32))
        step()
    histograms = np.stack(found)
    return histograms, int((histograms.sum(axis=1) == 0).sum())


def _tell(
    maps: dict[str, EmbeddedMap], features: dict[str, npt.NDArray[Any]], out: Path, as_json: bool
) -> None:
    rows: dict[str, dict[str, Any]] = {}
    for name, found in maps.items():
        assert found.before is not None
        assert found.after is not None
        rows[name] = {
            "dimensions": features[name].shape[1],
            "trustworthiness": found.trustworthiness,
            "agreement_features": found.before.value,
            "agreement_map": found.after.value,
            "chance": found.after.chance,
            "n": found.after.n,
            "neighbours": found.k,
        }
    if as_json:
        typer.echo(json.dumps({"picture": str(out), "maps": rows}, sort_keys=True))
        return
    first = next(iter(rows.values()))
    typer.echo(f"{first['n']:,} images; share of the {first['neighbours']} nearest with the same class:")
    typer.echo(
        f"{'features':<24}{'numbers':>8}{'in features':>13}{'on the map':>12}{'chance':>8}{'trust':>8}"
    )
    for name, row in rows.items():
        typer.echo(
            f"{name:<24}{row['dimensions']:>8}{row['agreement_features']:>13.3f}{row['agreement_map']:>12.3f}"
            f"{row['chance']:>8.3f}{row['trustworthiness']:>8.3f}"
        )
    typer.echo(f"the picture is in {out}")
