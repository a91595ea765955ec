"""Chemical formulas: the name by which splits and duplicates group materials."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from ase.data import atomic_numbers, chemical_symbols

# Order of elements in formulas, from electropositive to electronegative: IUPAC Red Book 2005, table VI.
_ORDER = (
    "Rn Xe Kr Ar Ne He Fr Cs Rb K Na Li Ra Ba Sr Ca Mg Be "
    "Lr No Md Fm Es Cf Bk Cm Am Pu Np U Pa Th Ac Lu Yb Tm Er Ho Dy Tb Gd Eu Sm Pm Nd Pr Ce La Y Sc "
    "Rf Hf Zr Ti Db Ta Nb V Sg W Mo Cr Bh Re Tc Mn Hs Os Ru Fe Mt Ir Rh Co Ds Pt Pd Ni Rg Au Ag Cu "
    "Cn Hg Cd Zn Nh Tl In Ga Al B Fl Pb Sn Ge Si C Mc Bi Sb As P N H Lv Po Te Se S O Ts At I Br Cl F Og"
)
_RANK = {atomic_numbers[symbol]: rank for rank, symbol in enumerate(_ORDER.split())}


def reduced_counts(numbers: Iterable[int]) -> dict[int, int]:
    """Return atomic number -> count in the reduced formula, in the order of the formula."""
    counts = Counter(numbers)
    divisor = math.gcd(*counts.values())
    return {
        number: counts[number] // divisor for number in sorted(counts, key=lambda n: (_RANK.get(n, -1), n))
    }


def reduced_formula(numbers: Iterable[int]) -> str:
    """Return the reduced formula of some atoms, such as ``"MoS2"``.

    Parameters
    ----------
    numbers
        Atomic numbers, one an atom.
    """
    return "".join(
        chemical_symbols[number] + (str(count) if count > 1 else "")
        for number, count in reduced_counts(numbers).items()
    )


def anonymous_formula(numbers: Iterable[int]) -> str:
    """Return the reduced formula without its elements, rarest first, such as ``"AB2"`` for MoS2."""
    counts = sorted(reduced_counts(numbers).values())
    return "".join(
        chr(ord("A") + index) + (str(count) if count > 1 else "") for index, count in enumerate(counts)
    )
