"""The published JARVIS-STM images: read as jarvis-tools reads them, from a fixture of their layout."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import requests
from jarvis.db import figshare
from PIL import Image

from atomvision_hub.errors import AtomVisionError, CrystalError, NetworkNeededError
from atomvision_hub.simulation.jarvis_stm import FILES, PublishedStm

LATTICES = {"JVASP-667": "hexagonal", "JVASP-20": "square", "JVASP-9": "oblique"}


def jpeg(seed: int) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue()


def write_fixture(folder: Path, **more: bytes) -> None:
    """Write the two files in the layout that `jarvis.db.figshare.get_stm_2d_dataset` expects."""
    archive, lattices = (folder / name for name in FILES)
    with zipfile.ZipFile(archive, "w") as opened:
        for index, jid in enumerate(LATTICES):
            for sign in ("pos", "neg") if jid != "JVASP-9" else ("neg",):
                opened.writestr(f"STM_JPG/{jid}_{sign}.jpg", jpeg(2 * index + (sign == "neg")))
        for name, content in more.items():
            opened.writestr(f"STM_JPG/{name}_pos.jpg", content)
    lattices.write_text(json.dumps(LATTICES))


def test_images_are_those_that_jarvis_tools_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_fixture(tmp_path)
    by_url = {url: (tmp_path / name).read_bytes() for name, url in FILES.items()}
    monkeypatch.setattr(figshare.requests, "get", lambda url: SimpleNamespace(content=by_url[url]))
    theirs = dict(zip(("positive", "negative"), figshare.get_stm_2d_dataset(), strict=True))
    ours = PublishedStm(tmp_path)
    assert ours.ids == (
        "JVASP-20@negative",
        "JVASP-20@positive",
        "JVASP-667@negative",
        "JVASP-667@positive",
        "JVASP-9@negative",
    )
    count = 0
    for sign, entries in theirs.items():
        for entry in entries:
            identifier = f"{entry['jid']}@{sign}"
            with Image.open(io.BytesIO(ours.image(identifier))) as image:
                assert np.array_equal(np.asarray(image), entry["image_values"])
            assert ours.lattice(identifier) == entry["lat_type"]
            assert (ours.material(identifier), ours.sign(identifier)) == (entry["jid"], sign)
            count += 1
    assert count == len(ours.ids)


def test_without_network_the_error_says_which_file_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise requests.ConnectionError("no route")

    monkeypatch.setattr(requests, "get", refuse)
    with pytest.raises(NetworkNeededError, match=r"files/21884952; put it as jarvis_stm_images\.zip into"):
        PublishedStm(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_downloads_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_fixture(tmp_path)
    by_url = {url: (tmp_path / name).read_bytes() for name, url in FILES.items()}
    asked: list[str] = []

    class Answer(io.BytesIO):
        def raise_for_status(self) -> None: ...

        def iter_content(self, size: int) -> list[bytes]:
            return [self.getvalue()]

    def get(url: str, **options: object) -> Answer:
        assert options["timeout"]
        asked.append(url)
        return Answer(by_url[url])

    monkeypatch.setattr(requests, "get", get)
    store = tmp_path / "store"
    first, again = PublishedStm(store), PublishedStm(store)
    assert sorted(asked) == sorted(FILES.values())
    assert first.ids == again.ids
    assert first.version() == again.version()


def test_hostile_images_are_refused_one_by_one(tmp_path: Path) -> None:
    wide = io.BytesIO()
    Image.new("L", (9000, 10)).save(wide, "JPEG")
    write_fixture(tmp_path, **{"JVASP-1": b"no image", "JVASP-2": wide.getvalue(), "JVASP-3": bytes(2**25)})
    images = PublishedStm(tmp_path)
    for name, reason in (("JVASP-1", "cannot"), ("JVASP-2", "9000 x 10"), ("JVASP-3", "33,554,432 bytes")):
        with pytest.raises(CrystalError, match=reason) as caught:
            images.image(f"{name}@positive")
        assert caught.value.step == "read"
    assert images.image("JVASP-20@positive")


def test_other_files_are_told(tmp_path: Path) -> None:
    write_fixture(tmp_path)
    (tmp_path / "jarvis_stm_images.zip").write_bytes(b"<html>sorry</html>")
    with pytest.raises(AtomVisionError, match="has not the files of jarvis:stm"):
        PublishedStm(tmp_path)
