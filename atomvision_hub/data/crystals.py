"""Crystals as the inputs of a build, for every dataset that is made of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np

from atomvision_hub.cards.dataset import SourceFacts
from atomvision_hub.data.interface import BuildOptions, Inputs, Item, Rejection
from atomvision_hub.errors import CrystalError
from atomvision_hub.structures import Structures, duplicates, load_structures


class Crystals(Inputs):
    """The crystals of a build.

    Parameters
    ----------
    structures
        Lazy mapping id -> crystal.
    """

    def __init__(self, structures: Structures) -> None:
        self.structures = structures

    @classmethod
    def open(cls, options: BuildOptions) -> Self:
        """Open the crystals that the options name."""
        sources = list(options.sources)
        return cls(load_structures(sources, store_dir=options.store_dir, limit=options.limit))

    def items(self) -> Iterator[Item | Rejection]:
        """Return all crystals without opening them; the group is the reduced formula."""
        for identifier in self.structures:
            source = self.source_of(identifier)
            try:
                yield Item(identifier, self.structures.formula(identifier), source)
            except CrystalError as problem:
                yield Rejection(identifier, source, problem.step, problem.reason)

    def duplicates(self, ids: Sequence[str]) -> Mapping[str, str]:
        """Return duplicate id -> id that is kept, by composition and structure."""
        return duplicates(self.structures, ids)

    def source_of(self, identifier: str) -> str:
        """Return the name of a crystal's source."""
        return self.structures.source_of(identifier)[0]

    def sources(self) -> list[SourceFacts]:
        """Return the provenance of all sources."""
        return [
            SourceFacts(
                name=source.name,
                description=source.description,
                citation=source.citation,
                licence=source.licence,
                url=source.url,
                version=source.version_or_sha256,
            )
            for source in self.structures.sources
        ]


def random_pose(seed: int, identifier: str, pose: int, cell: Any) -> tuple[float, tuple[float, float]]:
    """Return rotation (degree) and shift (Å) of an image, uniform over the circle and over the cell.

    Drawn from a hash of what the image is, so that they do not depend on other rows or on the worker.
    """
    digest = hashlib.blake2b(f"{seed}:{identifier}:{pose}".encode(), digest_size=16).digest()
    generator = np.random.default_rng(int.from_bytes(digest, "big"))
    rotation = float(generator.uniform(0, 360))
    cosine, sine = np.cos(np.radians(rotation)), np.sin(np.radians(rotation))
    x, y = np.array([[cosine, -sine], [sine, cosine]]) @ (generator.uniform(size=2) @ np.asarray(cell))
    return rotation, (float(x), float(y))
