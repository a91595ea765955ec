"""`atomvision cluster`: maps of a dataset by its pixels, its bond angles and what models make of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atomvision_hub.commands import completion
from atomvision_hub.commands.shared import JsonOption, emit, note
from atomvision_hub.errors import UsageError

if TYPE_CHECKING:
    import numpy.typing as npt

    from atomvision_hub.analysis.embedding import EmbeddedMap

#: Images of a tiny map, and the fewest that make one.
_TINY, _FEWEST = 48, 12


def cluster(
    dataset: Annotated[str, typer.Argument(help="Dataset folder or Hub id, such as build/stem2d.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="PNG to write.")] = Path("cluster.png"),
    config: Annotated[
        str | None,
        typer.Option(
            "--config", "-c", autocompletion=completion.dataset_configs, help="Config of the dataset."
        ),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Tag of a dataset on the Hub.")] = None,
    split: Annotated[
        str, typer.Option(autocompletion=completion.splits, help="Which split; the models never saw 'test'.")
    ] = "test",
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
    as_json: JsonOption = False,
) -> None:
    """Draw maps (t-SNE) of a dataset, coloured by lattice, and say how far to believe them.

    Three maps: of the pixels, of histograms of bond angles (found without a network), and of what the shipped
    classifier's last layer sees. Works offline.

    Example: atomvision cluster build/stem2d --config rotated --out cluster.png
    """
    from atomvision_hub._files import write_bytes
    from atomvision_hub.analysis.embedding import embed
    from atomvision_hub.analysis.map_picture import maps_picture
    from atomvision_hub.commands.cluster_features import bond_angles, pixels, read
    from atomvision_hub.data.progress import Steps

    if out.suffix.lower() != ".png":
        raise UsageError(f"--out is a PNG, not {out.name}; write {out.with_suffix('.png').name}")
    size = min(limit or _TINY, _TINY) if tiny else limit
    images, sizes, labels, names = read(dataset, config, revision, split, label, size, seed)
    count = len(images)
    features: dict[str, npt.NDArray[Any]] = {"pixels": pixels(images)}
    with Steps("bond angles", count, "images") as step:
        features["bond angles"], without = bond_angles(images, sizes, step)
    if without:
        note(f"note: no bond angles in {without} of {count} images; they share one point")
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
        emit({"picture": str(out), "maps": rows})
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
