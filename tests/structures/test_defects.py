"""Point defects: the numbers asked for, sensible chemistry, and the real defective MoS2 cells."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import ase
import numpy as np
import pytest
from ase.data import atomic_numbers, chemical_symbols

from atomvision_hub.errors import CrystalError, UsageError
from atomvision_hub.structures import flat_layer, load_structures
from atomvision_hub.structures.defects import (
    ANTISITE,
    INTERSTITIAL,
    KINDS,
    SUBSTITUTION,
    VACANCY,
    add_defects,
    apply_defects,
    dopants_of,
    find_defects,
)

REFERENCE = load_structures("reference")


def layer(material_id: str) -> ase.Atoms:
    return flat_layer(REFERENCE[material_id])


def triples(table: np.ndarray) -> Counter[tuple[str, str, str]]:
    return Counter(
        (KINDS[kind], chemical_symbols[before], chemical_symbols[after] if after else "")
        for kind, before, after in table[["kind", "before", "after"]].tolist()
    )


def test_numbers_shares_and_elements() -> None:
    atoms = layer("MoS2")
    made = add_defects(atoms, vacancies={"S": 0.05}, substitutions={"Mo": 3}, antisites=2, repeats=(6, 6))
    assert made.counts() == {"vacancy": round(0.05 * 72), "antisite": 4, "substitution": 3}
    assert set(made.defects["before"][made.defects["kind"] == VACANCY]) == {16}
    assert set(made.defects["before"][made.defects["kind"] == SUBSTITUTION]) == {42}
    assert set(made.defects["after"][made.defects["kind"] == SUBSTITUTION]) <= {24, 74}
    assert len(made.atoms) == 108 - 4
    assert add_defects(atoms, vacancies=0.1, repeats=(5, 5)).counts() == {"vacancy": 8}


def test_the_table_says_what_lies_where() -> None:
    atoms = layer("MoS2")
    pristine = atoms.repeat((5, 4, 1))
    made = add_defects(atoms, vacancies=4, antisites=2, substitutions=5, repeats=(5, 4), seed=7)
    for defect in made.defects:
        site = defect["site"]
        assert pristine.numbers[site] == defect["before"] != defect["after"]
        assert pristine.positions[site] == pytest.approx([defect["x"], defect["y"], defect["z"]])
        here = np.flatnonzero(made.sites == site)
        if defect["kind"] == VACANCY:
            assert defect["after"] == 0
            assert not len(here)
        else:
            assert made.atoms.numbers[here].tolist() == [defect["after"]]
    untouched = ~np.isin(made.sites, made.defects["site"])
    assert (made.atoms.numbers[untouched] == pristine.numbers[made.sites[untouched]]).all()
    assert (made.atoms.positions == pristine.positions[made.sites]).all()


def test_a_table_gives_its_crystal_again() -> None:
    atoms = layer("MoS2")
    made = add_defects(atoms, vacancies=4, antisites=2, substitutions=5, repeats=(5, 4), seed=7)
    assert apply_defects(atoms, made.repeats, made.defects) == made.atoms
    for repeats in ((2, 2), (4, 5)):
        with pytest.raises(CrystalError, match="the table of defects is not one of this crystal"):
            apply_defects(layer("black-P"), repeats, made.defects)


def test_seeds() -> None:
    one, same, other = (
        add_defects(layer("h-BN"), vacancies=5, repeats=(9, 9), seed=seed) for seed in (1, 1, 2)
    )
    assert one.defects.tobytes() == same.defects.tobytes() != other.defects.tobytes()


def test_antisites_are_neighbours() -> None:
    made = add_defects(layer("h-BN"), antisites=1, repeats=(9, 9))
    first, second = made.defects
    apart = made.atoms.copy()
    distance = apart.get_distance(int(first["site"]), int(second["site"]), mic=True)
    assert distance == pytest.approx(1.45, abs=0.02)
    assert (first["before"], first["after"]) == (second["after"], second["before"])


def test_defects_keep_their_distance() -> None:
    atoms = layer("MoS2")
    made = add_defects(atoms, vacancies=4, substitutions=4, repeats=(8, 8), minimum_distance=6.0, seed=2)
    whole = atoms.repeat((8, 8, 1))
    sites = made.defects["site"]
    whole.positions[:, 2] = 0  # seen from above
    distances = np.array([whole.get_distances(int(i), sites, mic=True) for i in sites])
    assert distances[~np.eye(8, dtype=bool)].min() >= 6.0
    with pytest.raises(UsageError, match=r"vacancies: no site is left that is 20 Å from all other defects"):
        add_defects(atoms, vacancies=4, repeats=(3, 3), minimum_distance=20.0)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("Mo", {"W", "Cr"}),
        ("S", {"Se"}),
        ("Se", {"S", "Te"}),
        ("C", {"B", "N"}),
        ("Cl", {"Br"}),
        ("Si", {"Ge"}),
    ],
)
def test_replacements_are_sensible(host: str, expected: set[str]) -> None:
    assert {chemical_symbols[n] for n in dopants_of(atomic_numbers[host])} == expected


def test_every_element_has_a_replacement() -> None:
    for number in range(1, 95):
        assert dopants_of(number)
        assert number not in dopants_of(number)


def test_own_choice_of_dopants() -> None:
    atoms = layer("MoS2")
    made = add_defects(atoms, substitutions={"S": 5}, dopants={"S": ["O", "Te"]}, repeats=(6, 6))
    assert {chemical_symbols[n] for n in made.defects["after"]} <= {"O", "Te"}
    with pytest.raises(UsageError, match="dopants names no other element for Mo"):
        add_defects(atoms, substitutions={"Mo": 1}, dopants={"S": ["Se"]})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"vacancies": 1.5},
            r"vacancies must be a whole number or a share of the sites \(0.0 to 1.0\), not 1.5",
        ),
        ({"vacancies": 4}, "vacancies: 4 of 3 sites; ask for fewer"),
        ({"vacancies": {"W": 1}}, "vacancies: there is no W in the crystal"),
        ({"vacancies": {"Zz": 1}}, "there is no element 'Zz'"),
        ({"antisites": -1}, "antisites: -1 of 3 sites"),
        ({"repeats": (0, 1)}, "repeats must be two whole numbers from 1"),
        ({"minimum_distance": float("nan")}, "minimum_distance must be a length in Å"),
    ],
)
def test_wrong_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        add_defects(layer("MoS2"), **options)


def test_antisites_need_two_elements() -> None:
    with pytest.raises(UsageError, match="antisites need a crystal of at least two elements"):
        add_defects(layer("graphene"), antisites=1)


def test_relaxed_shifted_and_turned_cells_are_understood() -> None:
    """Atoms off their sites, another origin, the other side up, strain: the same defects."""
    generator = np.random.default_rng(0)
    atoms = layer("MoS2")
    for seed in range(4):
        made = add_defects(atoms, vacancies=3, substitutions=2, repeats=(6, 6), seed=seed)
        other = made.atoms.copy()
        other.positions += generator.normal(scale=0.08, size=other.positions.shape)
        other.set_cell(other.cell.array * [[1.02], [1.02], [1.0]], scale_atoms=True)
        other.translate([1.234, -0.77, 0.4])
        if seed % 2:
            middle = other.positions[:, 2].mean()
            other.positions[:, 2] = 2 * middle - other.positions[:, 2]
            other.positions[:, :2] *= -1
        other.wrap()
        found = find_defects(other, atoms)
        assert triples(found) == triples(made.defects)


def test_interstitials_are_told() -> None:
    made = add_defects(layer("graphene"), vacancies=1, repeats=(6, 6))
    atoms = made.atoms.copy()
    atoms += ase.Atoms("Si", positions=[[7.0, 3.0, atoms.positions[0, 2] + 1.8]])
    found = find_defects(atoms, layer("graphene"), align=False)
    assert found["kind"].tolist() == [VACANCY, INTERSTITIAL]
    last = found[-1]
    assert (last["before"], last["after"], last["site"]) == (0, 14, -1)


def test_another_crystal_is_refused() -> None:
    made = add_defects(layer("MoS2"), vacancies=1, repeats=(4, 4))
    with pytest.raises(CrystalError, match="the cell is no multiple of the pristine one"):
        find_defects(made.atoms, layer("black-P"))
    with pytest.raises(CrystalError, match="the two crystals share no element"):
        find_defects(made.atoms, layer("WSe2"))


def read_plain_cif(file: Path) -> ase.Atoms:
    """Read a CIF without symmetry, for which ASE takes half a second."""
    text = file.read_text()
    a, b, c = (float(re.search(rf"_cell_length_{axis} +(\S+)", text)[1]) for axis in "abc")
    assert "_cell_angle_gamma   120.0" in text
    sites = re.findall(r"^ +([A-Z][a-z]?)  \S+  1  (\S+)  (\S+)  (\S+)  1\.0$", text, re.MULTILINE)
    return ase.Atoms(
        [symbol for symbol, *_ in sites],
        scaled_positions=np.array([place for _, *place in sites], dtype=float),
        cell=[a, b, c, 90, 90, 120],
        pbc=True,
    )


def test_real_defective_cells(shared_data: Path) -> None:
    """27 cells of 8x8 MoS2, each with a molybdenum and a sulphur vacancy and one selenium for sulphur."""
    files = sorted((shared_data / "structures" / "defects").glob("*.cif"))
    assert len(files) == 27
    different = set()
    for file in files:
        atoms = read_plain_cif(file)
        assert len(atoms) == 3 * 64 - 2
        found = find_defects(atoms, REFERENCE["MoS2"])
        assert triples(found) == {
            ("vacancy", "Mo", ""): 1,
            ("vacancy", "S", ""): 1,
            ("substitution", "S", "Se"): 1,
        }
        # By another way: all atoms lie on the nodes of a 24 x 24 grid at three heights, and these are empty.
        fractions = np.rint(atoms.get_scaled_positions() * [24, 24, 1e4]).astype(int) % [24, 24, 10**4]
        taken = {tuple(node) for node in fractions.tolist()}
        bottom, middle, top = sorted({z for *_, z in taken})
        expected = []
        for z in (bottom, middle, top):
            x, y = next((x, y) for x, y, height in taken if height == z)
            nodes = {((x + 3 * i) % 24, (y + 3 * j) % 24, z) for i in range(8) for j in range(8)}
            expected += [(i, j, 42 if z == middle else 16, 0) for i, j, _ in nodes - taken]
        selenium = fractions[atoms.numbers == 34][0].tolist()
        expected.append((*selenium[:2], 16, 34))
        places = np.column_stack((found["x"], found["y"])) @ np.linalg.inv(atoms.cell.array[:2, :2])
        nodes = np.rint(places * 24).astype(int) % 24
        told = [
            (*node, *rest)
            for node, rest in zip(nodes.tolist(), found[["before", "after"]].tolist(), strict=True)
        ]
        assert sorted(told) == sorted(expected)
        different.add(tuple(sorted(told)))
    assert len(different) > 20


def test_antisites_are_named_so() -> None:
    made = add_defects(layer("h-BN"), antisites=2, vacancies=1, repeats=(7, 7), seed=3)
    found = find_defects(made.atoms, layer("h-BN"), align=False)
    assert (found["kind"] == ANTISITE).sum() == 4
    assert found["site"].tolist() == made.defects["site"].tolist()
