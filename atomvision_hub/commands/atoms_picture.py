"""`atomvision atoms-picture`: a crystal with vacancies, its image, the mask, and the atoms counted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from atomvision_hub.commands import completion
from atomvision_hub.commands.shared import JsonOption, emit
from atomvision_hub.errors import UsageError


def atoms_picture(
    crystal: Annotated[
        str, typer.Argument(autocompletion=completion.crystals, help="Reference crystal.")
    ] = "graphene",
    vacancies: Annotated[int, typer.Option(min=0, help="Atoms that are missing in the view.")] = 3,
    out: Annotated[Path, typer.Option("--out", "-o", help="PNG to write.")] = Path("atoms.png"),
    dose: Annotated[
        float | None, typer.Option(min=1, help="Detected electrons per Å²; by default no noise.")
    ] = None,
    segmenter: Annotated[
        str | None,
        typer.Option(
            help="Folder or Hub id of a segmenter, whose mask decides which peaks are atoms; without it the "
            "true mask is shown and not used."
        ),
    ] = None,
    field_of_view: Annotated[float, typer.Option(min=8, max=100, help="Side of the image, Å.")] = 20.0,
    rotation: Annotated[float, typer.Option(help="Turn of the crystal, degrees.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of vacancies and noise.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Draw a crystal with vacancies, its STEM image, the mask, and the atoms counted in the image.

    Example: atomvision atoms-picture graphene --vacancies 3 --out figure4.png
    """
    from atomvision_hub._files import write_bytes
    from atomvision_hub.commands.atoms_drawing import count_atoms, draw
    from atomvision_hub.structures import flat_layer, load_structures

    structures = load_structures("reference")
    if crystal not in structures:
        raise UsageError(f"no reference crystal {crystal!r}; some are {', '.join(list(structures)[:6])}")
    counted = count_atoms(
        flat_layer(structures[crystal]),
        vacancies,
        dose=dose,
        segmenter=segmenter,
        field_of_view=field_of_view,
        rotation=rotation,
        seed=seed,
    )
    write_bytes(out, draw(counted, title=crystal))
    if as_json:
        told = {"columns": len(counted.columns), "vacancies": len(counted.vacancies)}
        found = {"columns_found": len(counted.atoms), "vacancies_seen": int(counted.empty.sum())}
        emit({"picture": str(out), "crystal": crystal, **told, **found})
        return
    typer.echo(
        f"{len(counted.atoms)} columns found, {len(counted.columns)} are there; "
        f"{int(counted.empty.sum())} of {len(counted.vacancies)} vacancies seen"
    )
    typer.echo(f"wrote {out}")
