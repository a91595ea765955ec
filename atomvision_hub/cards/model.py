"""Model cards: facts in, README.md out."""
from __future__ import annotations

from pathlib import Path


def write_model_card(folder: Path) -> None:
    """Render."""
    (folder / "README.md").write_text("---\npipeline_tag: image-classification\n---\n")
