"""`atomvision stm-picture`: crystals as STM and STEM show them, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from atomvision_hub.commands import completion
from atomvision_hub.commands.shared import JsonOption, emit
from atomvision_hub.errors import UsageError


def stm_picture(
    crystals: Annotated[
        list[str] | None,
        typer.Argument(
            autocompletion=completion.crystals,
            help="Reference crystals; by default graphene, FeTe and MoS2.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="PNG to write.")] = Path("stm_and_stem.png"),
    bias: Annotated[float, typer.Option(min=0.01, help="Magnitude of the sample bias, V.")] = 0.5,
    current: Annotated[bool, typer.Option("--current", help="Constant current in place of height.")] = False,
    field_of_view: Annotated[float, typer.Option(min=1, max=200, help="Side of the images, Å.")] = 20.0,
    rotation: Annotated[float, typer.Option(help="Turn of the crystals, degrees.")] = 0.0,
    surrogate: Annotated[
        bool, typer.Option("--surrogate", help="s orbitals in place of computed densities of states.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Draw crystals in STM at both signs of the bias and in STEM, with one field of view.

    Example: atomvision stm-picture graphene FeTe MoS2 --out figure3.png
    """
    from atomvision_hub._files import write_bytes
    from atomvision_hub.simulation.stm.picture import stm_and_stem_picture
    from atomvision_hub.structures import flat_layer, load_structures

    names = crystals or ["graphene", "FeTe", "MoS2"]
    structures = load_structures("reference")
    for name in names:
        if name not in structures:
            raise UsageError(f"no reference crystal {name!r}; some are {', '.join(list(structures)[:6])}")
    picture = stm_and_stem_picture(
        {name: flat_layer(structures[name]) for name in names},
        bias=bias,
        mode="constant_current" if current else "constant_height",
        field_of_view=field_of_view,
        rotation=rotation,
        surrogate=surrogate,
    )
    write_bytes(out, picture)
    if as_json:
        emit({"picture": str(out), "crystals": names, "bias": bias, "field_of_view": field_of_view})
    else:
        typer.echo(f"wrote {out}")
