"""Volumes of other codes: right numbers, right units, and one line for what cannot be read."""

from __future__ import annotations

import gzip
from pathlib import Path

import ase
import numpy as np
import numpy.typing as npt
import pytest
from ase.units import Bohr, Hartree

from atomvision_hub.errors import CrystalError, UsageError
from atomvision_hub.structures import volumes
from atomvision_hub.structures.volumes import is_volume_file, read_volume

Array = npt.NDArray[np.float64]
SHAPE = (3, 4, 6)


@pytest.fixture
def crystal() -> ase.Atoms:
    cell = [(3.0, 0, 0), (-1.0, 2.5, 0), (0, 0, 9.0)]
    return ase.Atoms("BN", scaled_positions=[(0, 0, 0.5), (0.3, 0.6, 0.55)], cell=cell, pbc=True)


@pytest.fixture
def values() -> Array:
    return np.random.default_rng(3).uniform(0.1, 2.0, SHAPE)


def vasp_text(crystal: ase.Atoms, *blocks: Array, augmentation: bool = False) -> str:
    """A file as VASP writes it: x runs fastest, five numbers a line, densities times the volume."""
    lines = ["written by a test", "1.0"]
    lines += [" ".join(f"{x:.8f}" for x in vector) for vector in crystal.cell.array]
    lines += [" B N", " 1 1", "Direct"]
    lines += [" ".join(f"{x:.10f}" for x in row) for row in crystal.get_scaled_positions()] + [""]
    for number, block in enumerate(blocks):
        flat = block.ravel(order="F")
        lines.append(" ".join(str(n) for n in block.shape))
        lines += [" ".join(f"{x:.11E}" for x in flat[start : start + 5]) for start in range(0, len(flat), 5)]
        if augmentation:
            for atom in (1, 2):
                lines += [f"augmentation occupancies   {atom}  4", " 0.1 0.2 0.3 0.4"]
            if number == 0 and len(blocks) > 1:
                lines.append(" 0.0 0.0")  # starting moments stand between the blocks
    return "\n".join(lines) + "\n"


def cube_text(crystal: ase.Atoms, data: Array, origin: Array) -> str:
    lines = ["written by a test", "second comment"]
    lines.append(f"{len(crystal):5d} " + " ".join(f"{x / Bohr:.10f}" for x in origin))
    for count, vector in zip(data.shape, crystal.cell.array, strict=True):
        lines.append(f"{count:5d} " + " ".join(f"{x / Bohr / count:.12f}" for x in vector))
    for number, position in zip(crystal.numbers, crystal.positions, strict=True):
        lines.append(f"{number:5d} 0.0 " + " ".join(f"{x / Bohr:.10f}" for x in position))
    lines += [" ".join(f"{x:.11E}" for x in row) for row in data.reshape(-1, data.shape[2])]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", ["PARCHG", "CHGCAR", "CHG", "mos2_PARCHG_0.5V", "PARCHG.vasp"])
def test_vasp_density_is_divided_by_the_volume(
    tmp_path: Path, crystal: ase.Atoms, values: Array, name: str
) -> None:
    path = tmp_path / name
    path.write_text(vasp_text(crystal, values * crystal.get_volume()))
    volume = read_volume(path)
    np.testing.assert_allclose(volume.values, values, rtol=1e-9)
    np.testing.assert_allclose(volume.atoms.positions, crystal.positions, atol=1e-6)
    assert (volume.unit, volume.kind, volume.spin) == ("e/Å^3", "density", None)
    assert volume.atoms.pbc.all()
    assert volume.source == f"{name} (VASP)"


@pytest.mark.parametrize("augmentation", [False, True])
def test_spin_polarised_density_has_total_and_difference(
    tmp_path: Path, crystal: ase.Atoms, values: Array, augmentation: bool
) -> None:
    size, difference = crystal.get_volume(), values - 1.0
    path = tmp_path / "CHGCAR"
    path.write_text(vasp_text(crystal, values * size, difference * size, augmentation=augmentation))
    volume = read_volume(path)
    assert volume.spin is not None
    np.testing.assert_allclose(volume.values, values, rtol=1e-9)
    np.testing.assert_allclose(volume.spin, difference, atol=1e-9)


def test_potential_is_not_divided(tmp_path: Path, crystal: ase.Atoms, values: Array) -> None:
    path = tmp_path / "LOCPOT"
    path.write_text(vasp_text(crystal, values))
    volume = read_volume(path)
    np.testing.assert_allclose(volume.values, values, rtol=1e-9)
    assert (volume.unit, volume.kind) == ("eV", "potential")


def test_spin_polarised_potential_has_mean_and_difference(
    tmp_path: Path, crystal: ase.Atoms, values: Array
) -> None:
    # Here the blocks are spin up and spin down, with the moments of the atoms between them.
    up, down = (vasp_text(crystal, block) for block in (values + 0.3, values - 0.1))
    moments = " 0.25E+01 0.00E+00\n"
    path = tmp_path / "LOCPOT"
    path.write_text(up + moments + down[down.index("3 4 6\n") :])
    volume = read_volume(path)
    assert volume.spin is not None
    np.testing.assert_allclose(volume.values, values + 0.1, rtol=1e-9)
    np.testing.assert_allclose(volume.spin, 0.4, rtol=1e-8)


def test_packed_files_read_the_same(tmp_path: Path, crystal: ase.Atoms, values: Array) -> None:
    texts = {"PARCHG": vasp_text(crystal, values), "x.cube": cube_text(crystal, values, np.zeros(3))}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
        plain, packed = read_volume(tmp_path / name), read_volume(tmp_path / f"{name}.gz")
        np.testing.assert_array_equal(plain.values, packed.values)


def test_cube_is_in_atomic_units_and_has_an_origin(tmp_path: Path, crystal: ase.Atoms, values: Array) -> None:
    path = tmp_path / "ldos.cube"
    path.write_text(cube_text(crystal, values, np.array([0.5, -1.0, 2.0])))
    density, potential = read_volume(path), read_volume(path, kind="potential")
    np.testing.assert_allclose(density.values, values / Bohr**3, rtol=1e-9)
    np.testing.assert_allclose(potential.values, values * Hartree, rtol=1e-9)
    np.testing.assert_allclose(density.atoms.cell.array, crystal.cell.array, atol=1e-8)
    np.testing.assert_allclose(density.atoms.positions, crystal.positions, atol=1e-8)
    np.testing.assert_allclose(density.origin, [0.5, -1.0, 2.0], atol=1e-8)


def test_what_vasp_and_pyscf_wrote(shared_data: Path) -> None:
    folder = shared_data / "stm" / "volumes"
    charge = read_volume(folder / "graphene_vasp" / "CHGCAR")
    electrons = charge.values.mean() * charge.atoms.get_volume()
    np.testing.assert_allclose(electrons, 8, atol=1e-4)
    potential = read_volume(folder / "graphene_vasp" / "LOCPOT")
    # The average of the Hartree potential is the zero of a plane-wave code.
    assert abs(potential.values.mean()) < 1e-6
    states = read_volume(folder / "hBN_valence_1eV.cube.gz")
    assert states.values.shape == (36, 36, 120)
    np.testing.assert_allclose(states.atoms.cell.lengths()[:2], 2.51, atol=1e-3)


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.9, 0.97])
@pytest.mark.parametrize("name", ["PARCHG", "x.cube"])
def test_cut_off_files_are_told_in_one_line(
    tmp_path: Path, crystal: ase.Atoms, values: Array, name: str, share: float
) -> None:
    text = vasp_text(crystal, values) if name == "PARCHG" else cube_text(crystal, values, np.zeros(3))
    path = tmp_path / name
    path.write_text(text[: int(len(text) * share)])
    with pytest.raises(CrystalError, match=f"^{name} cannot be read: ") as caught:
        read_volume(path)
    assert caught.value.step == "read"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("grid", ["100000 100000 100000", "-3 4 6", "0 4 6", "3 4", "a b c"])
def test_a_grid_that_cannot_be_is_refused_before_it_is_allocated(
    tmp_path: Path, crystal: ase.Atoms, values: Array, grid: str
) -> None:
    path = tmp_path / "PARCHG"
    path.write_text(vasp_text(crystal, values).replace("3 4 6\n", grid + "\n"))
    with pytest.raises(
        CrystalError, match=r"PARCHG cannot be read: (its grid |it is cut off|invalid literal)"
    ):
        read_volume(path)


def test_atoms_that_cannot_be_are_refused_before_they_are_counted(
    tmp_path: Path, crystal: ase.Atoms, values: Array
) -> None:
    (tmp_path / "PARCHG").write_text(vasp_text(crystal, values).replace("\n 1 1\n", "\n 1 9999999999999\n"))
    cube = cube_text(crystal, values, np.zeros(3)).splitlines(keepends=True)
    many = [*cube[:2], cube[2].replace("2", "9999999999999", 1), *cube[3:]]
    (tmp_path / "x.cube").write_text("".join(many))
    for name in ("PARCHG", "x.cube"):
        with pytest.raises(
            CrystalError, match=f"{name} cannot be read: it is cut off: too short for .* atoms"
        ):
            read_volume(tmp_path / name)


def test_cubes_of_orbitals_have_labels_which_may_never_come(
    tmp_path: Path, crystal: ase.Atoms, values: Array
) -> None:
    # A negative number of atoms promises a line of labels.
    cube = cube_text(crystal, values, np.zeros(3)).splitlines(keepends=True)
    cube[2] = cube[2].replace("2", "-2", 1)
    (tmp_path / "whole.cube").write_text("".join([*cube[:8], "1 7\n", *cube[8:]]))
    np.testing.assert_allclose(read_volume(tmp_path / "whole.cube").values, values / Bohr**3, rtol=1e-9)
    cube[8] = "999999 7 8\n"
    (tmp_path / "short.cube").write_text("".join(cube))
    with pytest.raises(CrystalError, match=r"short.cube cannot be read: "):
        read_volume(tmp_path / "short.cube")


def test_values_that_are_no_numbers(tmp_path: Path, crystal: ase.Atoms, values: Array) -> None:
    values[1, 2, 3] = np.nan
    (tmp_path / "x.cube").write_text(cube_text(crystal, values, np.zeros(3)))
    with pytest.raises(CrystalError, match="values that are not numbers"):
        read_volume(tmp_path / "x.cube")
    (tmp_path / "PARCHG").write_text(vasp_text(crystal, values).replace("NAN", "*****"))
    with pytest.raises(CrystalError, match="PARCHG cannot be read"):
        read_volume(tmp_path / "PARCHG")


def test_sizes_are_bounded_also_when_unpacked(
    tmp_path: Path, crystal: ase.Atoms, values: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "PARCHG").write_text(vasp_text(crystal, values))
    (tmp_path / "bomb.cube.gz").write_bytes(gzip.compress(bytes(3 * 2**20)))
    monkeypatch.setattr(volumes, "LARGEST", 1000)
    with pytest.raises(CrystalError, match="PARCHG cannot be read: it is larger than"):
        read_volume(tmp_path / "PARCHG")
    with pytest.raises(CrystalError, match=r"bomb.cube.gz cannot be read: it unpacks to more than"):
        read_volume(tmp_path / "bomb.cube.gz")


def test_numbers_are_bounded(
    tmp_path: Path, crystal: ase.Atoms, values: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    # More words than the grid needs take memory as well.
    (tmp_path / "x.cube").write_text(cube_text(crystal, values, np.zeros(3)) + "1 " * 1000)
    (tmp_path / "PARCHG").write_text(vasp_text(crystal, values))
    monkeypatch.setattr(volumes, "MOST_NUMBERS", 100)
    with pytest.raises(CrystalError, match=r"x.cube cannot be read: it holds more than 100 numbers"):
        read_volume(tmp_path / "x.cube")
    monkeypatch.setattr(volumes, "MOST_NUMBERS", 71)
    with pytest.raises(CrystalError, match="PARCHG cannot be read: its grid has more than 71 points"):
        read_volume(tmp_path / "PARCHG")


@pytest.mark.parametrize("content", [b"", b"\x00\xff\xfe" * 500, b"not gzip at all", b"\n" * 40])
@pytest.mark.parametrize("name", ["PARCHG", "x.cube", "x.cube.gz"])
def test_rubbish_is_told_in_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CrystalError, match=f"^{name} cannot be read: "):
        read_volume(tmp_path / name)


def test_missing_and_unknown_files(tmp_path: Path) -> None:
    with pytest.raises(CrystalError, match="no such file"):
        read_volume(tmp_path / "PARCHG")
    with pytest.raises(UsageError, match=r"table.csv: not a known volume; give a VASP PARCHG"):
        read_volume(tmp_path / "table.csv")
    with pytest.raises(UsageError, match="kind must be 'density' or 'potential', not 'elf'"):
        read_volume(tmp_path / "PARCHG", kind="elf")  # type: ignore[arg-type]
    assert is_volume_file(Path("a/PARCHG_up.gz"))
    assert not is_volume_file(Path("POSCAR"))
