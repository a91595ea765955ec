"""Lattice from the image alone: known crystals, superstructures, noise, no lattice, errors."""

from __future__ import annotations

import json

import numpy as np
import pytest

from atomvision_hub.analysis.errors import AnalysisError
from atomvision_hub.analysis.lattice_fit import fit_lattice
from atomvision_hub.simulation import simulate_stem
from atomvision_hub.structures import classify_lattice, load_structures


@pytest.mark.parametrize("name", ["MoS2", "FeSe", "SnS", "graphene"])
def test_known_crystals(name: str) -> None:
    crystal = load_structures("reference")[name]
    frame = simulate_stem(crystal, rotation=17, shift=(0.3, 1.1))
    fit = fit_lattice(frame.image, frame.pixel_size)
    truth = classify_lattice(crystal)
    assert fit.lattice == truth.projected
    assert fit.a == pytest.approx(truth.projected_cell.a, rel=1e-3)
    assert fit.b == pytest.approx(truth.projected_cell.b, rel=1e-3)
    assert fit.gamma == pytest.approx(truth.projected_cell.gamma, abs=0.05)
    json.dumps(fit.to_dict(), allow_nan=False)


def test_noise_has_no_lattice() -> None:
    noise = np.random.default_rng(0).poisson(5, (128, 128))
    assert fit_lattice(noise, 0.1).lattice is None


def test_errors() -> None:
    with pytest.raises(AnalysisError, match="at least 16 x 16"):
        fit_lattice(np.zeros((8, 100)), 0.1)
    with pytest.raises(AnalysisError, match="pixel_size is -1"):
        fit_lattice(np.zeros((32, 32)), -1.0)
