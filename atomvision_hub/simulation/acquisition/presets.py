"""Acquisitions with a name, and where their numbers come from.

Dose
    ``good``, ``typical`` and ``poor`` are 5,000, 500 and 50 *detected* electrons per Å². A current I, a
    dwell time t and pixels of width p bring ``I t / (e p²)`` electrons per Å²: 10 pA, 10 µs and 0.1 Å are
    62,000. Of these an annular detector from the angle theta outwards sees about ``n sigma``, with n atoms
    per Å² and the Rutherford cross-section ``sigma = 4 pi (Z e² / (4 pi eps0 4 E))² cot²(theta / 2)``, not
    relativistic and without screening: 0.7 % for MoS2 and 0.04 % for graphene at 80 kV and 60 mrad. So
    ``typical`` is a single scan of MoS2 with 11 pA, ``good`` one with 110 pA or a sum of ten, ``poor`` one
    that spares the specimen (or a usual one of graphene).
Source
    0.8 Å full width at half maximum, with which simulations match HAADF images of SrTiO3 on an absolute
    scale: J. M. LeBeau, S. D. Findlay, L. J. Allen, S. Stemmer, Phys. Rev. Lett. 100, 206101 (2008),
    doi 10.1103/PhysRevLett.100.206101.
Jitter and drift
    Kinds and causes of scan distortions: L. Jones, P. D. Nellist, Microsc. Microanal. 19, 1050 (2013),
    doi 10.1017/S1431927613001402; flyback: X. Sang et al., Adv. Struct. Chem. Imaging 2, 6 (2016). Sizes are
    conventions of this project: 0.1 Å rms a line (a pixel of the default images) and 1 % over the frame,
    which for a view of 26 Å that takes a second is 0.26 Å/s, the order of what stages do once they have
    settled (1 nm a minute is 0.17 Å/s).
Bits
    8, as most programs export images.
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
