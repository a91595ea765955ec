"""The motif of simulated crystals is that of the crystal, and its CIF says no more than an image shows."""

from __future__ import annotations

import io

import numpy as np
import pytest
from ase.io import read

from atomvision_hub import load_structures, simulate_stem
from atomvision_hub.errors import UsageError
from atomvision_hub.inference import Analysis, analyze
from atomvision_hub.inference.motif import find_motif, with_error


def recorded(name: str, *, vacancies: float = 0.0, pixel_size: float | None = 0.12) -> Analysis:
    frame = simulate_stem(load_structures("reference")[name], shape=(256, 256), pixel_size=0.12, rotation=17)
    image = frame.image / frame.image.max()
    rng = np.random.default_rng(0)
    if vacancies:
        bright = np.argwhere(image > 0.97)
        for row, column in bright[rng.random(len(bright)) < vacancies]:
            image[max(0, row - 6) : row + 7, max(0, column - 6) : column + 7] = image.min()
    return analyze(
        rng.poisson(image * 200 + 2).astype(np.float32),
        pixel_size=pixel_size,
        segmenter="none",
        classifier="none",
    )


def test_molybdenum_and_sulphur() -> None:
    motif = recorded("MoS2").motif
    assert motif is not None
    assert (motif.lattice, motif.unit) == ("hexagonal", "Å")
    first, second = motif.sites
    assert (first.x, first.y, first.intensity) == (0, 0, 1)
    # On a hexagonal cell the other column sits at (1/3, 2/3) or (2/3, 1/3), by how a and b were chosen.
    assert sorted((second.x, second.y)) == pytest.approx([1 / 3, 2 / 3], abs=0.01)
    assert 0.2 < second.intensity < 0.6
    assert motif.explained > 0.95
    assert second.share > 0.9
    assert second.error < 0.05 * motif.a


def test_two_equal_columns() -> None:
    motif = recorded("graphene").motif
    assert motif is not None
    assert len(motif.sites) == 2
    assert motif.sites[1].intensity == pytest.approx(1, abs=0.1)


def test_vacancies_lower_the_share_of_a_site() -> None:
    motif = recorded("MoS2", vacancies=0.02).motif
    assert motif is not None
    assert min(site.share for site in motif.sites) < 0.97


def test_cif_without_elements_and_with() -> None:
    motif = recorded("MoS2").motif
    assert motif is not None
    text = motif.to_cif("my scan <1>.dm4")
    assert "data_my_scan__1_.dm4" in text
    assert "an image does not tell elements" in text
    atoms = read(io.StringIO(text), format="cif")
    assert atoms.get_chemical_symbols() == ["X", "X"]
    assert atoms.cell.lengths()[:2] == pytest.approx((motif.a, motif.b), abs=0.01)
    np.testing.assert_allclose(
        atoms.get_scaled_positions()[1, :2], [motif.sites[1].x, motif.sites[1].y], atol=1e-3
    )
    named = read(io.StringIO(motif.to_cif(elements=("Mo", "S"))), format="cif")
    assert named.get_chemical_symbols() == ["Mo", "S"]
    with pytest.raises(UsageError, match="1 elements for 2 columns"):
        motif.to_cif(elements=("Mo",))
    with pytest.raises(UsageError, match="is no symbol of an element"):
        motif.to_cif(elements=("Mo", "S\ndata_x"))


def test_no_cif_without_calibration_and_no_motif_without_lattice() -> None:
    blind = recorded("MoS2", pixel_size=None)
    assert blind.motif is not None
    assert blind.motif.unit == "px"
    with pytest.raises(UsageError, match="not calibrated"):
        blind.motif.to_cif()
    assert find_motif(blind.atoms, None) is None


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (4.0923, 0.0553, "4.092(55)"),
        (91.01, 0.81, "91.01(81)"),
        (120.0, 12.0, "120(12)"),
        (0.5, 0.0, "0.5000"),
        (3.19612, 0.00096, "3.19612(96)"),
    ],
)
def test_numbers_with_errors(value: float, error: float, text: str) -> None:
    assert with_error(value, error) == text
