"""Columns fitted to images larger than a part, of finer pixels, or explained in places only."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.spatial import cKDTree

from atomvision_hub.analysis import detect_atoms
from atomvision_hub.inference.fitted_columns import _joined, explaining_columns
from atomvision_hub.simulation import StemFrame, simulate_stem
from atomvision_hub.structures import load_structures


def frame(name: str, side: int, pixel_size: float = 0.1) -> StemFrame:
    crystal = load_structures("reference")[name]
    return simulate_stem(crystal, shape=(side, side), pixel_size=pixel_size, rotation=17, shift=(0.4, 0.9))


def noisy(image: npt.NDArray[np.floating[Any]], share: float = 0.02) -> npt.NDArray[np.float32]:
    noise = share * image.max() * np.random.default_rng(2).standard_normal(image.shape)
    grey: npt.NDArray[np.float32] = (255 * (image + noise) / image.max()).astype(np.float32)
    return grey


def places(simulated: StemFrame) -> npt.NDArray[np.float64]:
    table = simulated.atoms[simulated.atoms["visible"]]
    _, first = np.unique(np.asarray(table["column"]), return_index=True)
    return np.stack([table["x"], table["y"]], 1)[first].astype(float)


def test_parts_of_a_large_image_meet_without_seams() -> None:
    simulated = frame("MoS2", 400)  # 2 x 2 parts
    grey, warnings = noisy(simulated.image), list[str]()
    found = explaining_columns(grey, (0.1, 0.1), detect_atoms(grey, 0.1), warnings)
    assert found is not None
    table, left = found.atoms, found.residual
    assert not warnings
    assert left == pytest.approx(1, abs=0.03)
    truth = places(simulated)
    tree = cKDTree(np.stack([table.x, table.y], 1))
    assert tree.query(truth[((truth > 0) & (truth < 399)).all(1)])[0].max() < 0.5
    assert tree.query(tree.data, k=2)[0][:, 1].min() > 5  # none twice
    assert len(table) == pytest.approx(len(truth), abs=3)


def test_columns_on_a_seam_are_there_once() -> None:
    """Both parts see a column that lies between them, each on its own side or on the other's."""
    one = (np.array([10.0, 99.6]), np.array([5.0, 5.0]), np.ones(2), np.ones(2))
    other = (np.array([99.5, 99.7, 120.0]), np.array([5.1, 40.0, 5.0]), np.ones(3), np.ones(3))
    x, y, *_ = _joined([one, other], 1.0)
    assert x.tolist() == [10.0, 99.6, 99.7, 120.0]
    assert y.tolist() == [5.0, 5.0, 40.0, 5.0]


def test_finer_pixels_are_averaged_first() -> None:
    simulated = frame("black-P", 400, pixel_size=0.05)
    grey = noisy(simulated.image)
    found = explaining_columns(grey, (0.05, 0.05), detect_atoms(grey, 0.05), [])
    assert found is not None
    truth = places(simulated)
    inner = truth[((truth > 20) & (truth < 380)).all(1)]
    away = cKDTree(np.stack([found.atoms.x, found.atoms.y], 1)).query(inner)[0]
    assert away.max() < 1.0  # px: 0.05 Å
    assert found.atoms.width[0] == pytest.approx(10, rel=0.03)


def test_where_a_crystal_explains_a_part_only_peaks_stay_in_the_others() -> None:
    grey = noisy(frame("MoS2", 400).image)
    generator = np.random.default_rng(0)
    grey[:, 240:] = 60
    rows, columns = np.mgrid[:400, :160]
    for x, y in generator.uniform(10, [150, 390], (60, 2)):
        grey[:, 240:] += 120 * np.exp(-0.5 * ((columns - x) ** 2 + (rows - y) ** 2) / 49)
    grey += generator.normal(0, 3, grey.shape).astype(np.float32)
    peaks, warnings = detect_atoms(grey, 0.1), list[str]()
    found = explaining_columns(grey, (0.1, 0.1), peaks, warnings)
    assert found is not None
    assert warnings == ["a crystal explains 2 of 4 parts of the image, the others show peaks"]
    right, before = found.atoms.x > 201, peaks.x > 201
    assert np.array_equal(np.sort(found.atoms.x[right]), np.sort(peaks.x[before]))
    tree = cKDTree(np.stack([found.atoms.x, found.atoms.y], 1))
    seam = np.abs(found.atoms.x - 200) < 5
    assert seam.any()
    assert tree.query(tree.data[seam], k=2)[0][:, 1].min() > 5


def test_what_no_crystal_explains_keeps_its_peaks() -> None:
    generator, warnings = np.random.default_rng(0), list[str]()
    grey = generator.normal(100, 5, (330, 330)).astype(np.float32)
    assert explaining_columns(grey, (0.1, 0.1), detect_atoms(grey, 0.1), warnings) is None
    assert "do not explain the image" in warnings[0]
