"""Crystals that people calibrate with or that the AtomVision paper shows, from the literature."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

from ase import Atoms


def _magnetite() -> Atoms:
    # M. E. Fleet, Acta Cryst. B37, 917 (1981): a = 8.3941 Å, u = 0.2549, inverse spinel in Fd-3m (origin 2).
    from ase.spacegroup import crystal

    sites = [(0.125, 0.125, 0.125), (0.5, 0.5, 0.5), (0.2549, 0.2549, 0.2549)]
    return crystal(("Fe", "Fe", "O"), sites, spacegroup=227, setting=2, cellpar=[8.3941] * 3 + [90] * 3)


def _tin_sulfide() -> Atoms:
    # H. Wiedemeier and H. G. von Schnering, Z. Kristallogr. 148, 295 (1978), turned to the setting Pnma.
    from ase.spacegroup import crystal

    sites = [(0.1194, 0.25, 0.1198), (0.8508, 0.25, 0.4793)]
    return crystal(("Sn", "S"), sites, spacegroup=62, cellpar=[11.200, 3.987, 4.334, 90, 90, 90])


def _strontium_titanate() -> Atoms:
    from ase.spacegroup import crystal

    sites = [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)]
    return crystal(("Sr", "Ti", "O"), sites, spacegroup=221, cellpar=[3.905] * 3 + [90] * 3)


def _cubic(symbol: str, structure: str, a: float) -> Callable[[], Atoms]:
    def build() -> Atoms:
        from ase.build import bulk

        return bulk(symbol, structure, a=a, cubic=True)

    return build


#: Name -> crystal in its conventional cell, lattice constants at room temperature; those of the elements and
#: of SrTiO3 as in common tables.
PHASES: MappingProxyType[str, Callable[[], Atoms]] = MappingProxyType(
    {
        "Fe3O4": _magnetite,
        "Rh": _cubic("Rh", "fcc", 3.803),
        "SnS": _tin_sulfide,
        "Au": _cubic("Au", "fcc", 4.0786),
        "Pt": _cubic("Pt", "fcc", 3.9242),
        "Si": _cubic("Si", "diamond", 5.4310),
        "SrTiO3": _strontium_titanate,
    }
)


def known_phase(name: str) -> Atoms | None:
    """Return a crystal of `PHASES` by its formula, `None` where it is not there."""
    return PHASES[name]() if name in PHASES else None
