"""Formulas in the spellings of titles and captions, and the words that only look like formulas."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomvision_hub.literature.formulas import elements, formulas

READ = {
    "monolayer MoS2": ("MoS2",),
    "MoS$_2$ and MoS$_{2}$": ("MoS2",),
    "MoS_{2}, MoS\u2082": ("MoS2",),
    "WSe 2 _{2} bilayers": ("WSe2",),
    "MoS 2 monolayers": ("MoS2",),
    "$\\mathrm{Bi}_2\\mathrm{Se}_3$": ("Bi2Se3",),
    "$\\mathrm{Bi_2Se_3}$ films": ("Bi2Se3",),
    "{\\rm SrTiO}$_3$": ("SrTiO3",),
    "La0.7Sr0.3MnO3": ("La7Sr3Mn10O30",),
    "La$_{0.5}$Sr$_{1.5}$MnO$_4$": ("LaSr3Mn2O8",),
    "1T'-WTe2 and 2H-NbSe$_2$": ("WTe2", "NbSe2"),
    "\u03b3-Al2O3": ("Al2O3",),
    "Ca(OH)2": ("CaO2H2",),
    "GaAs/AlAs": ("GaAs", "AlAs"),
    "MoS2/WSe2": ("MoS2", "WSe2"),
    "CsPbBr3.": ("CsPbBr3",),
    "h-BN": ("BN",),
    "hexagonal boron nitride on graphene": ("BN", "C"),
    "Phosphorene": ("P",),
    "Au(111) and Si(111)-7x7": ("Au", "Si"),
    "LiF and NaCl": ("LiF", "NaCl"),
    "CO on Cu(111)": ("CO", "Cu"),
    "H2O, CO2 and O2": ("H2O", "CO2", "O"),
    "C60 molecules": ("C",),
    "Fe3O4 (Fe$^{3+}$)": ("Fe3O4",),
    "Bi$_2$Sr$_2$CaCu$_2$O$_{8+\\delta}$": (),
    "Nd$_{2-x}$Ce$_x$CuO$_4$": (),
}
NOT_READ = (
    "In the figure, As shown, He said No; I am At home. Be it.",
    "PSF, STM, CI, UV, FIB, HOPG, SI, CPU, PVC, COF, BF, III and IV",
    "HeLa cells, NaN values and PhD students in COP26",
    "Panel (C), Fig. B, Ref. F, Figs. S1 and S2, CIFAR10",
    "WS of 2 nm", "P63 space group, C2 axis, C1, B335, K3GV, 5 K and 10 V",
    "10 cm\u00b2 at 3 V", "Carbon-free Os", "Pt", "CHARMM", "BN1", "Scan No. 2",
)  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), READ.items())
def test_formulas_are_read_in_every_spelling(text: str, expected: tuple[str, ...]) -> None:
    assert formulas(text) == expected


@pytest.mark.parametrize("text", NOT_READ)
def test_words_and_abbreviations_are_no_formulas(text: str) -> None:
    assert formulas(text) == ()


def test_elements_come_from_formulas_names_and_unknown_amounts() -> None:
    assert elements("Nd$_{2-x}$Ce$_x$CuO$_4$") == ("O", "Cu", "Ce", "Nd")
    assert elements("Ti3C2Tx MXene") == ("C", "Ti")
    assert elements("gold on Silicon, In Fig. C") == ("Si", "Au")
    assert elements("graphene on h-BN") == ("B", "C", "N")
    assert elements("no chemistry leads here") == ()


@settings(deadline=None, derandomize=True, max_examples=150)
@given(
    st.lists(
        st.tuples(st.sampled_from(["Mo", "Se", "Ga", "Fe", "Bi", "Sr"]), st.integers(1, 9)),
        min_size=2,
        max_size=4,
        unique_by=lambda part: part[0],
    ),
    st.sampled_from(["{}", "$_{{{}}}$", "$_{}$", "_{{{}}}"]),
)
def test_spelling_of_subscripts_changes_nothing(parts: list[tuple[str, int]], form: str) -> None:
    plain = "".join(f"{symbol}{count if count > 1 else ''}" for symbol, count in parts)
    spelled = "".join(symbol + (form.format(count) if count > 1 else "") for symbol, count in parts)
    assert formulas(f"Layers of {spelled}, grown") == formulas(plain)
    assert len(formulas(plain)) == 1


@pytest.mark.parametrize(
    "hostile",
    [
        "C" * 1_000_000,
        "(" * 1_000_000,
        "Mo" * 500_000,
        "_{" * 500_000,
        "C2H" * 300_000,
        "2-x" * 300_000,
        "Si " * 300_000,
    ],
)
def test_a_megabyte_of_anything_takes_no_time(hostile: str) -> None:
    started = time.process_time()
    formulas(hostile)
    assert time.process_time() - started < 4


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.text(st.sampled_from("CHNOSiMoTex0123456789.()_{}$^\\-+ \u2082\u00b2"), max_size=60))
def test_any_text_gets_an_answer(text: str) -> None:
    for formula in formulas(text):
        assert formulas(formula) in {(formula,), ()}
