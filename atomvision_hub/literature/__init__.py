"""Literature: arXiv articles -> figures with caption, rights and what they show."""

from __future__ import annotations
