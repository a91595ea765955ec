"""Point-spread functions: normalised, and given back by their texts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomvision_hub.errors import UsageError
from atomvision_hub.simulation import FunctionPSF, GaussianPSF, JarvisPSF, RadialPSF, TabulatedPSF, parse_psf

widths = st.floats(0.01, 20)


def integral(psf: RadialPSF) -> float:
    r = np.linspace(0, psf.reach, 200_001)
    return float(np.trapezoid(2 * np.pi * r * psf(r), r))


@pytest.mark.parametrize(
    "psf",
    [
        GaussianPSF(0.5),
        GaussianPSF([0.3, 1.5], [2, 1]),
        JarvisPSF(),
        TabulatedPSF([0, 0.3, 1.0], [5, 4, 0]),
        FunctionPSF(lambda r: np.exp(-r)),
        FunctionPSF(lambda r: 1 / (1 + r**2), reach=4.0),
    ],
)
def test_integral_is_one(psf: RadialPSF) -> None:
    assert integral(psf) == pytest.approx(1, abs=2e-6)
    assert psf(psf.reach * 1.001 + 1e-9) < 1e-6 * psf.peak


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.lists(st.tuples(widths, st.floats(0.1, 10)), min_size=1, max_size=4))
def test_texts_of_gaussians_round_trip(terms: list[tuple[float, float]]) -> None:
    psf = GaussianPSF([sigma for sigma, _ in terms], [weight for _, weight in terms])
    again = parse_psf(str(psf))
    assert isinstance(again, GaussianPSF)
    assert again.sigmas == psf.sigmas
    np.testing.assert_allclose(again.weights, psf.weights, rtol=1e-15)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.lists(st.floats(0, 1e3), min_size=2, max_size=20).filter(lambda v: sum(v) > 1e-3))
def test_texts_of_tables_round_trip(values: list[float]) -> None:
    psf = TabulatedPSF(np.linspace(0, 2, len(values)), values)
    again = parse_psf(str(psf))
    assert again == psf
    assert hash(again) == hash(psf)
    r = np.linspace(0, 3, 50)
    assert np.array_equal(again(r), psf(r))


def test_texts_people_write() -> None:
    assert parse_psf("gaussian") == GaussianPSF(0.5)
    assert parse_psf(" gaussian( sigma = 0.4 ) ") == GaussianPSF(0.4)
    assert parse_psf("gaussian(sigma=[0.4, 1], weight=[3,1])") == GaussianPSF([0.4, 1.0], [0.75, 0.25])
    assert isinstance(parse_psf("jarvis"), JarvisPSF)
    assert repr(GaussianPSF(0.5)) == "gaussian(sigma=0.5)"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "airy",
        "gaussian(",
        "gaussian(0.5)",
        "gaussian(width=1)",
        "gaussian(sigma=x)",
        'gaussian(sigma="a")',
        "gaussian(sigma=-1)",
        "gaussian(sigma=[1,2], weight=[1])",
        "jarvis(sigma=1)",
        "tabulated",
        "tabulated(radius=[0,1])",
        "tabulated(radius=[1,2], value=[1,1])",
    ],
)
def test_texts_that_mean_nothing(text: str) -> None:
    with pytest.raises(UsageError, match=r"psf|sigma|weight") as caught:
        parse_psf(text)
    assert "\n" not in str(caught.value)


def test_functions_that_are_no_profile() -> None:
    with pytest.raises(UsageError, match="does not fall off"):
        FunctionPSF(lambda r: 1 / (1 + r**2))
    with pytest.raises(UsageError, match="one finite value per radius"), np.errstate(divide="ignore"):
        FunctionPSF(lambda r: 1 / r, reach=1.0)
    with pytest.raises(UsageError, match="one finite value per radius"):
        FunctionPSF(lambda r: 1.0, reach=1.0)
    with pytest.raises(UsageError, match="must be positive"):
        FunctionPSF(lambda r: 0 * r, reach=1.0)
    with pytest.raises(UsageError, match="reach must be a positive length"):
        FunctionPSF(lambda r: np.exp(-r), reach=-1.0)


def test_reach_is_found() -> None:
    assert 4 < FunctionPSF(lambda r: np.exp(-(r**2) / 2)).reach < 7
    assert FunctionPSF(lambda r: np.where(r < 1.5, 1.0, 0.0)).reach == pytest.approx(1.5, abs=0.02)
