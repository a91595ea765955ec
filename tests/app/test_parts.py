"""Parts of the app that need no browser."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from atomvision_hub.errors import UsageError


@pytest.fixture
def shared(app_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    from tabs import shared

    monkeypatch.setattr(shared, "ROOT", tmp_path)
    monkeypatch.setattr(shared, "GRACE", 0.05)
    return shared


def _upload(root: Path, name: str = "scan.png", content: bytes = b"x") -> Path:
    path = root / "0123" / name
    path.parent.mkdir()
    path.write_bytes(content)
    return path


def test_an_upload_is_deleted_after_use(shared: Any, tmp_path: Path) -> None:
    path = _upload(tmp_path)
    with shared.upload(str(path)) as found:
        assert found == path
    time.sleep(0.5)
    assert not path.parent.exists()


def test_an_upload_that_came_anew_is_left_for_its_reader(shared: Any, tmp_path: Path) -> None:
    path = _upload(tmp_path)
    with shared.upload(str(path)):
        os.utime(path, ns=(1, 1))
    time.sleep(0.5)
    assert path.exists()


def test_nothing_outside_the_folder_of_uploads_is_deleted(
    shared: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _upload(tmp_path)
    monkeypatch.setattr(shared, "ROOT", tmp_path / "other")
    with shared.upload(str(path)):
        pass
    time.sleep(0.5)
    assert path.exists()


def test_large_uploads_are_refused_and_deleted(
    shared: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "MAX_MEGABYTES", 0)
    path = _upload(tmp_path)
    with pytest.raises(UsageError, match="is larger than 0 MB"):
        shared.read_upload(str(path))
    time.sleep(0.5)
    assert not path.parent.exists()


def test_images_of_many_pixels_are_refused(
    shared: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, micrographs: dict[str, Path]
) -> None:
    from atomvision_hub.microscopy import MicroscopyError

    monkeypatch.setattr(shared, "MAX_PIXELS", 256 * 256 - 1)
    path = _upload(tmp_path, "scan.png", micrographs["square"].read_bytes())
    with pytest.raises(MicroscopyError, match="declares 256 x 256 pixels"):
        shared.read_upload(str(path))


def test_what_goes_wrong_becomes_one_sentence(shared: Any, tmp_path: Path) -> None:
    status, result = object(), object()

    @shared.guarded(status, result)
    def handler(problem: Exception) -> dict[Any, Any]:
        raise problem

    told = handler(UsageError(f"{tmp_path}{os.sep}scan.png is <odd>\nin two lines"))
    assert "scan.png is &lt;odd&gt; in two lines" in told[status]
    assert str(tmp_path) not in told[status]
    assert told[result] is None
    assert "the log of this app tells" in handler(RuntimeError("secret"))[status]
    assert "secret" not in handler(RuntimeError("secret"))[status]


def test_sessions_have_folders_of_their_own_inside_the_root(shared: Any, tmp_path: Path) -> None:
    one, other = (
        shared.session_folder(SimpleNamespace(session_hash=name)) for name in ("a", "../../outside")
    )
    assert one != other
    assert {one.parent, other.parent} == {tmp_path / "sessions"}
    shared.forget(SimpleNamespace(session_hash="a"))
    assert not one.exists()
    assert other.exists()


def test_names_of_files_do_not_become_markup(app_folder: Path) -> None:
    from tabs import figures

    grey = np.zeros((8, 8), np.uint8)
    for page in (
        figures.image_with_layers(grey, {"<i>": ""}, "<b>"),
        figures.picture(grey, "<b>"),
        figures.table([("<b>", "<i>")], "<u>"),
        figures.notes(["<b>"]),
    ):
        assert not any(mark in page for mark in ("<b>", "<i>", "<u>"))


def test_the_space_is_described_by_its_header(app_folder: Path) -> None:
    import yaml

    header = yaml.safe_load((app_folder / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert header["sdk"] == "gradio"
    assert (app_folder / header["app_file"]).is_file()
    assert (app_folder / "requirements.txt").is_file()


def test_sessions_that_were_left_behind_are_removed(shared: Any, tmp_path: Path) -> None:
    old = shared.session_folder(SimpleNamespace(session_hash="old"))
    (old / "scan.json").write_text("{}", encoding="utf-8")
    os.utime(old, (1, 1))
    shared.session_folder(SimpleNamespace(session_hash="new"))
    assert not old.exists()
