"""Acquisitions with a name, and where their numbers come from.

Doses, widths and amplitudes are round numbers that this package chose; each entry says what they stand for.
The works that are cited are sources only of what is said beside them.

Dose
    ``good``, ``typical`` and ``poor`` are 5,000, 500 and 50 *detected* electrons per Å². A current I, a
    dwell time t and pixels of width p bring ``I t / (e p²)`` electrons per Å²: 10 pA, 10 µs and 0.1 Å are
    62,000. Of these an annular detector from the angle theta outwards sees about ``n sigma``, with n atoms
    per Å² and the Rutherford cross-section ``sigma = 4 pi (Z e² / (4 pi eps0 4 E))² cot²(theta / 2)``, not
    relativistic and without screening: 0.7 % for MoS2 and 0.04 % for graphene at 80 kV and 60 mrad. So
    ``typical`` is a single scan of MoS2 with 11 pA, ``good`` one with 110 pA or a sum of ten, ``poor`` one
    that spares the specimen (or a usual one of graphene).
Source
    0.8 Å full width at half maximum, a convention: it widens the ideal columns of 1.2 Å (0.5 Å standard
    deviation) by a fifth. That HAADF images agree with simulations on an absolute scale was shown by J. M.
    LeBeau, S. D. Findlay, L. J. Allen, S. Stemmer, Quantitative atomic resolution scanning transmission
    electron microscopy, Phys. Rev. Lett. 100, 206101 (2008), doi 10.1103/PhysRevLett.100.206101; the number
    is not taken from there.
Jitter and drift
    Kinds and causes of scan distortions: L. Jones, P. D. Nellist, Identifying and correcting scan noise and
    drift in the scanning transmission electron microscope, Microsc. Microanal. 19, 1050 (2013), doi
    10.1017/S1431927613001402. Flyback: X. Sang et al., Dynamic scan control in STEM: spiral scans, Adv.
    Struct. Chem. Imaging 2, 6 (2016), doi 10.1186/s40679-016-0020-3. Sizes are conventions of this package:
    0.1 Å rms a line (a pixel of the default images) and 1 % over the frame, which for a view of 26 Å that
    takes a second is 0.26 Å/s, or 1.5 nm a minute.
Bits
    8, a convention: what PNG and most exported images have.
"""

from __future__ import annotations

from atomvision_hub.simulation.acquisition.steps import Digitise, Dose, Drift, LineJitter, SourceSize, Step

PRESETS: dict[str, tuple[Step, ...]] = {
    "ideal": (),
    "good": (Dose(electrons=5000),),
    "typical": (
        SourceSize(fwhm=0.8),
        Drift(fraction=0.01),
        LineJitter(rms=0.1),
        Dose(electrons=500),
        Digitise(bits=8),
    ),
    "poor": (Dose(electrons=50),),
}
