"""The picture of STM beside STEM, as a function and as a command."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from atomvision_hub.commands.stm_picture import stm_picture
from atomvision_hub.errors import UsageError
from atomvision_hub.simulation.stm.picture import stm_and_stem_picture
from atomvision_hub.structures import flat_layer, load_structures


def test_a_row_of_three_images_for_each_crystal() -> None:
    structures = load_structures("reference")
    crystals = {name: flat_layer(structures[name]) for name in ("graphene", "MoS2")}
    one = stm_and_stem_picture({"MoS2": crystals["MoS2"]})
    two = stm_and_stem_picture(crystals, mode="constant_current", field_of_view=12)
    assert one == stm_and_stem_picture({"MoS2": crystals["MoS2"]})  # the same bytes again
    (wide, low), (width, high) = Image.open(io.BytesIO(one)).size, Image.open(io.BytesIO(two)).size
    assert wide == width
    assert high > 1.7 * low
    # The two signs of the bias show different images, the surrogate's are one.
    columns = np.asarray(Image.open(io.BytesIO(one)).convert("L"), float)[100:, 60:]
    third = columns.shape[1] // 3
    assert np.abs(columns[:, :third] - columns[:, third : 2 * third]).mean() > 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"crystals": {}}, "no crystal to show"),
        ({"field_of_view": 0}, "field_of_view is a length"),
        ({"bias": 0.0}, "bias a voltage"),
    ],
)
def test_what_cannot_be_shown(arguments: dict[str, object], message: str) -> None:
    layer = flat_layer(load_structures("reference")["graphene"])
    with pytest.raises(UsageError, match=message):
        stm_and_stem_picture(**{"crystals": {"graphene": layer}, "surrogate": True, **arguments})  # type: ignore[arg-type]


def test_the_command_writes_a_png(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(stm_picture)
    out = tmp_path / "new" / "picture.png"
    result = CliRunner().invoke(app, ["graphene", "--surrogate", "--field-of-view", "8", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert Image.open(out).format == "PNG"
    result = CliRunner().invoke(app, ["unobtainium", "--out", str(out)])
    assert isinstance(result.exception, UsageError)
    assert "no reference crystal 'unobtainium'; some are" in str(result.exception)
