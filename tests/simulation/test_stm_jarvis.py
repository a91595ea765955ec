"""jarvis-tools' `TersoffHamannSTM` and ours: equal values where it is right, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from ase import Atoms

from atomvision_hub.simulation.stm import LocalDensity, simulate_stm
from atomvision_hub.structures.volumes import Volume, read_volume

Array = npt.NDArray[np.float64]


def write_parchg(path: Path, atoms: Atoms, values: Array) -> Path:
    """Write a density in e/Å^3 as VASP does."""
    lines = ["density of a test", "1.0"]
    lines += [" ".join(f"{x:.10f}" for x in vector) for vector in atoms.cell.array]
    symbols = list(dict.fromkeys(atoms.get_chemical_symbols()))
    counts = [atoms.get_chemical_symbols().count(symbol) for symbol in symbols]
    lines += [" ".join(symbols), " ".join(map(str, counts)), "Direct"]
    lines += [" ".join(f"{x:.12f}" for x in row) for row in atoms.get_scaled_positions(wrap=False)]
    lines += ["", " ".join(map(str, values.shape))]
    flat = (values * atoms.get_volume()).ravel(order="F")
    lines += [" ".join(f"{x:.11E}" for x in flat[start : start + 5]) for start in range(0, len(flat), 5)]
    path.write_text("\n".join(lines) + "\n")
    return path


def balls(atoms: Atoms, shape: tuple[int, int, int], decay: float = 2.2) -> Array:
    """A density: decaying exponentials around all atoms and their periodic images in the plane."""
    cell = atoms.cell.array
    fractions = np.stack(np.meshgrid(*(np.arange(n) / n for n in shape), indexing="ij"), axis=-1)
    values = np.zeros(shape)
    for number, position in zip(atoms.numbers, atoms.positions, strict=True):
        for i in range(-2, 3):
            for j in range(-2, 3):
                offset = fractions @ cell - (position + i * cell[0] + j * cell[1])
                values += number * np.exp(-decay * np.linalg.norm(offset, axis=-1))
    return values


@pytest.fixture
def rectangular() -> Atoms:
    """b = 2 a, so that a wrong aspect shows."""
    positions = [(0.3, 0.5, 1.0), (1.8, 3.6, 0.4)]
    return Atoms("SnS", positions, cell=(3.0, 6.0, 15.0), pbc=True)


@pytest.fixture
def hexagonal() -> Atoms:
    cell = [(2.5, 0, 0), (-1.25, 2.165063509, 0), (0, 0, 15.0)]
    return Atoms("BN", [(0, 0, 1.0), (0, 1.443375673, 1.0)], cell=cell, pbc=True)


def jarvis(path: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Any:
    """The simulator on a file; it writes its pictures into the working directory."""
    from jarvis.analysis.stm.tersoff_hamann import TersoffHamannSTM

    monkeypatch.chdir(path.parent)
    return TersoffHamannSTM(chg_name=str(path), **{"min_size": 9.0, **options})


def plane_of(theirs: Any, monkeypatch: pytest.MonkeyPatch) -> int:
    """Index of the plane it shows at constant height; the picture itself takes seconds and is left out."""
    monkeypatch.setattr(theirs, "use_interpolated", False)
    monkeypatch.setattr(theirs, "get_plot", lambda *_: None)
    return int(theirs.constant_height(filename="height.png")["zcut"])


def on_grid_points(density: LocalDensity, height: float) -> Array:
    """Values of `simulate_stm` at the grid points of the volume, [na, nb]: one line of pixels for each j."""
    na, nb, _ = density.values.shape
    u, v = density.atoms.cell.array[:2, :2]
    length = float(np.linalg.norm(u))
    turn = -float(np.degrees(np.arctan2(u[1], u[0])))
    angle = np.radians(turn)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    lines = []
    for j in range(nb):
        middle = (na - 1) / 2 / na * u + j / nb * v
        line = simulate_stm(
            density,
            height=height,
            shape=(1, na),
            pixel_size=length / na,
            rotation=turn,
            shift=-matrix @ middle,
        )
        lines.append(line.image[0])
    return np.array(lines, dtype=np.float64).T


def agreement(path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[float, float]:
    """Correlation with jarvis' plane, and how its values and ours are related."""
    theirs = jarvis(path, monkeypatch)
    cut = plane_of(theirs, monkeypatch)
    volume = read_volume(path)
    density = LocalDensity.from_volume(volume, bias=0.5)
    plane = theirs.chg[:, :, cut]
    top = density.atoms.positions[:, 2].max()
    ours = on_grid_points(density, cut / theirs.nz * theirs.c - top)
    ratio = plane / (ours * volume.atoms.get_volume())
    return float(np.corrcoef(plane.ravel(), ours.ravel())[0, 1]), float(np.abs(ratio - 1).max())


@pytest.mark.parametrize("lattice", ["rectangular", "hexagonal"])
def test_values_agree_on_the_same_plane_and_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lattice: str, request: pytest.FixtureRequest
) -> None:
    atoms = request.getfixturevalue(lattice)
    shape = (30, 60, 75) if lattice == "rectangular" else (25, 25, 75)
    correlation, deviation = agreement(
        write_parchg(tmp_path / "PARCHG", atoms, balls(atoms, shape)), monkeypatch
    )
    assert correlation > 0.999999
    assert deviation < 1e-4  # its values are ours times the volume of the cell


def test_values_agree_on_a_real_file(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "CHGCAR"  # beside which it may write
    path.symlink_to(shared_data / "stm" / "volumes" / "graphene_vasp" / "CHGCAR")
    correlation, deviation = agreement(path, monkeypatch)
    assert correlation > 0.999
    assert deviation < 1e-3


def test_aspect_is_right_where_a_differs_from_b(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rectangular: Atoms
) -> None:
    # A grid as fine along a as along b: jarvis places point (i, j) at i a + j b, a step as long as a cell.
    path = write_parchg(tmp_path / "PARCHG", rectangular, balls(rectangular, (15, 30, 40)))
    theirs = jarvis(path, monkeypatch, min_size=7.0, interp_step=3.0)
    image = np.asarray(theirs.constant_height(filename="height.png")["img_ext"])
    cells_a, cells_b = theirs.repeat
    true_aspect = (cells_a * 3.0) / (cells_b * 6.0)
    assert image.shape[1] / image.shape[0] < 0.6 * true_aspect
    # Ours repeats after 3 Å to the right and 6 Å downwards, and not earlier.
    frame = simulate_stm(LocalDensity.from_volume(read_volume(path), bias=0.5), shape=(120, 120))
    np.testing.assert_allclose(frame.image[:, 30:], frame.image[:, :-30], rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(frame.image[60:], frame.image[:-60], rtol=1e-3, atol=1e-7)
    assert np.abs(frame.image[30:] - frame.image[:-30]).max() > 0.3 * frame.image.max()


def test_images_have_no_empty_corners(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hexagonal: Atoms
) -> None:
    path = write_parchg(tmp_path / "PARCHG", hexagonal, balls(hexagonal, (12, 12, 40)))
    theirs = np.asarray(
        jarvis(path, monkeypatch, min_size=6.0).constant_height(filename="height.png")["img_ext"]
    )
    assert np.isnan(theirs).mean() > 0.3
    density = LocalDensity.from_volume(read_volume(path), bias=0.5)
    for mode in ("constant_height", "constant_current"):
        assert np.isfinite(simulate_stm(density, mode=mode, rotation=17).image).all()  # type: ignore[arg-type]


def test_heights_are_neither_tiled_the_wrong_way_nor_quantised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rectangular: Atoms
) -> None:
    path = write_parchg(tmp_path / "PARCHG", rectangular, balls(rectangular, (15, 30, 40)))
    theirs = jarvis(path, monkeypatch, use_interpolated=False)
    kept = {}
    monkeypatch.setattr(theirs, "get_plot", lambda ax, Z, extent, transform: kept.setdefault("image", Z))
    theirs.constant_current(filename="current.png", use_interpolated=False)
    cells_a, cells_b = theirs.repeat
    assert kept["image"].shape == (15 * cells_b, 30 * cells_a)  # 15 x cells_a, 30 x cells_b would be right
    planes = np.unique(kept["image"])
    assert np.issubdtype(kept["image"].dtype, np.integer)
    density = LocalDensity.from_volume(read_volume(path), bias=0.5)
    frame = simulate_stm(density, mode="constant_current", shape=(60, 30))
    assert len(planes) < 10
    assert len(np.unique(frame.image)) > 1000
    # Between planes 0.375 Å apart the height is that of the true density.
    fine = LocalDensity.from_volume(
        Volume(balls(rectangular, (30, 60, 300)), rectangular, "e/Å^3", "density"), bias=0.5
    )
    exact = simulate_stm(fine, mode="constant_current", shape=(60, 30), isovalue=frame.isovalue)
    np.testing.assert_allclose(frame.image, exact.image, atol=0.03)


def test_topmost_atom_of_a_centred_slab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rectangular: Atoms
) -> None:
    centred = rectangular.copy()
    centred.positions[:, 2] = [8.2, 6.8]  # around the middle of 15 Å
    path = write_parchg(tmp_path / "PARCHG", centred, balls(centred, (15, 30, 150)))
    theirs = jarvis(path, monkeypatch)
    assert plane_of(theirs, monkeypatch) / theirs.nz * theirs.c == pytest.approx(
        8.8, abs=0.11
    )  # 2 Å above the lower atom
    density = LocalDensity.from_volume(read_volume(path), bias=0.5)
    frame = simulate_stm(density, shape=(60, 30))
    row, column = np.unravel_index(frame.image.argmax(), frame.image.shape)
    x, y = ((column - 14.5) * 0.1 % 3.0, (row - 29.5) * 0.1 % 6.0)
    assert np.hypot(x - 0.3, y - 0.5) < 0.15  # the upper atom
    np.testing.assert_allclose(frame.image.max(), 50 * np.exp(-2.2 * 2.0), rtol=0.15)
