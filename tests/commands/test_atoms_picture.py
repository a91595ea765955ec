"""`atomvision atoms-picture`: vacancies are seen, the count is right, the picture is one."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from atomvision_hub.cli import app
from atomvision_hub.commands.atoms_drawing import count_atoms, draw
from atomvision_hub.errors import UsageError
from atomvision_hub.structures import flat_layer, load_structures


def _run(*words: object) -> Result:
    return CliRunner().invoke(app, ["atoms-picture", *map(str, words)], prog_name="atomvision")


def test_the_figure_of_the_paper(tmp_path: Path) -> None:
    out = tmp_path / "figure4.png"
    told = _run("graphene", "--vacancies", 3, "--out", out)
    assert told.exit_code == 0, told.output
    assert "3 of 3 vacancies seen" in told.output
    drawn = Image.open(io.BytesIO(out.read_bytes()))
    assert drawn.format == "PNG"
    assert drawn.width > 3 * drawn.height


@pytest.mark.parametrize("dose", [None, 5000.0])
def test_graphene_is_counted(dose: float | None) -> None:
    layer = flat_layer(load_structures("reference")["graphene"])
    whole = count_atoms(layer, 0, dose=dose, rotation=7)
    some = count_atoms(layer, 4, dose=dose, rotation=7, seed=1)
    assert len(some.columns) == len(whole.columns) - 4
    assert some.empty.all()
    assert abs(len(some.atoms) - len(some.columns)) <= 2  # at the edges a centre may fall in or out
    # No vacancy stands where an atom is, and all are inside the view.
    gaps = np.linalg.norm(some.columns[:, None] - some.vacancies, axis=2)
    assert gaps.min() > 10
    assert ((some.vacancies > 20) & (some.vacancies < 180)).all()
    assert draw(some) == draw(some)


def test_one_sulphur_of_two_leaves_its_column() -> None:
    layer = flat_layer(load_structures("reference")["MoS2"])
    whole, some = count_atoms(layer, 0), count_atoms(layer, 4, seed=0)
    lost = len(whole.columns) - len(some.columns)
    assert 0 < lost < 4
    assert some.empty.sum() == lost


def test_mistakes() -> None:
    told = _run("unobtainium")
    assert told.exit_code == 2
    assert "no reference crystal" in told.output
    with pytest.raises(UsageError, match="room for"):
        count_atoms(flat_layer(load_structures("reference")["graphene"]), 500)
