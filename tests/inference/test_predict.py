"""One image, one typed answer: views keep their aspect, files of all depths, clear refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atomvision_hub import load_structures, simulate_stem
from atomvision_hub.errors import AtomVisionError, UsageError
from atomvision_hub.inference import predict
from atomvision_hub.models.pretrained import DEFAULT_LATTICE, pretrained_folder
from atomvision_hub.structures import flat_layer
from atomvision_hub.structures.record import LATTICES


def view(name: str, shape: tuple[int, int], pixel_size: float = 0.1) -> np.ndarray:
    crystal = flat_layer(load_structures("reference")[name])
    return simulate_stem(crystal, shape=shape, pixel_size=pixel_size, rotation=17.0).image


def grey(image: np.ndarray) -> np.ndarray:
    return np.rint((image - image.min()) * (255 / np.ptp(image))).astype(np.uint8)


@pytest.mark.parametrize("name", ["MoS2", "graphene"])
def test_views_of_one_crystal_get_one_answer(calibrated_model: Path, name: str) -> None:
    """Cropped, never squashed: a taller or wider view shows the same centre."""
    answers = [
        predict(view(name, shape), calibrated_model, pixel_size=0.1)
        for shape in [(256, 256), (512, 256), (256, 512)]
    ]
    first = answers[0]
    assert first.calibrated
    for other in answers[1:]:
        assert other.label == first.label
        # Only the outermost pixels differ: the wider view has neighbours to interpolate with.
        assert other.probabilities == pytest.approx(first.probabilities, abs=0.02)


def test_pipeline_and_predict_agree(calibrated_model: Path, tmp_path: Path) -> None:
    from transformers import pipeline

    path = tmp_path / "image.png"
    Image.fromarray(grey(view("MoS2", (300, 260)))).save(path)
    ours = predict(path, calibrated_model, pixel_size=0.1)
    theirs = {
        entry["label"]: entry["score"]
        for entry in pipeline("image-classification", str(calibrated_model))(str(path))
    }
    assert ours.probabilities == pytest.approx(theirs, abs=1e-5)


def test_depth_of_the_file_does_not_matter(calibrated_model: Path, tmp_path: Path) -> None:
    image = view("FeSe", (256, 256))
    levels = (image - image.min()) / np.ptp(image)
    Image.fromarray(np.rint(levels * 255).astype(np.uint8)).save(tmp_path / "8.png")
    Image.fromarray(np.rint(levels * 65535).astype(np.uint16)).save(tmp_path / "16.png")
    Image.fromarray(np.rint(levels * 4095).astype(np.uint16)).save(tmp_path / "12.tif")
    Image.fromarray(image.astype(np.float32)).save(tmp_path / "float.tif")
    answers = [predict(path, calibrated_model) for path in sorted(tmp_path.iterdir())]
    answers.append(predict(image, calibrated_model))
    for answer in answers[1:]:
        assert answer.probabilities == pytest.approx(answers[0].probabilities, abs=0.01)


def test_wide_view_at_another_scale_is_cut_to_what_the_model_knows(calibrated_model: Path) -> None:
    """Twice the view at half the pixel size shows the model the same square of crystal."""
    known = predict(view("MoS2", (256, 256)), calibrated_model, pixel_size=0.1)
    fine = predict(view("MoS2", (1024, 1024), 0.05), calibrated_model, pixel_size=0.05)
    assert fine.calibrated
    assert "only the central 25.6 Å were looked at" in fine.warnings[0]
    assert fine.probabilities == pytest.approx(known.probabilities, abs=0.05)


def test_calibration_is_told(calibrated_model: Path) -> None:
    image = view("MoS2", (256, 256))
    blind = predict(image, calibrated_model)
    assert not blind.calibrated
    assert "pixel size unknown, the model learned views of 15 to 26 Å" in blind.warnings[0]
    assert blind.to_dict()["warnings"] == list(blind.warnings)
    with pytest.raises(AtomVisionError, match=r"the image shows 5\.1 Å, .*take a wider view"):
        predict(image, calibrated_model, pixel_size=0.02)
    with pytest.raises(AtomVisionError, match=r"2 Å/px is too coarse for this model; it needs 0\.8"):
        predict(image, calibrated_model, pixel_size=2)
    with pytest.raises(UsageError, match="positive number"):
        predict(image, calibrated_model, pixel_size=-1)


def test_wrong_input_is_one_line(
    calibrated_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "notes.png"
    text.write_text("no image")
    cut = tmp_path / "cut.png"
    Image.fromarray(grey(view("MoS2", (64, 64)))).save(cut)
    cut.write_bytes(cut.read_bytes()[:300])
    tiny = tmp_path / "tiny.png"
    Image.new("L", (5, 5)).save(tiny)
    for path, message in (
        (tmp_path / "none.png", "there is no file"),
        (text, "is no image of a kind read here"),
        (cut, "is damaged"),
        (tiny, "5 x 5 pixels"),
    ):
        with pytest.raises(AtomVisionError, match=message) as caught:
            predict(path, calibrated_model)
        assert "\n" not in str(caught.value)
    with pytest.raises(AtomVisionError, match=r"this array has shape \(3, 4, 5\)"):
        predict(np.zeros((3, 4, 5)), calibrated_model)
    with pytest.raises(AtomVisionError, match="holds no model"):
        predict(np.zeros((64, 64)), tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    big = tmp_path / "big.png"
    Image.new("L", (64, 64)).save(big)
    with pytest.raises(AtomVisionError, match="more than 1,000 pixels"):
        predict(big, calibrated_model)


def test_shipped_classifier_answers_offline() -> None:
    folder = pretrained_folder(DEFAULT_LATTICE)
    names = {path.name for path in folder.iterdir()}
    assert names >= {"config.json", "model.safetensors", "README.md", "facts.json"}
    assert sum(path.stat().st_size for path in folder.iterdir()) < 10_000_000
    answer = predict(view("MoS2", (256, 256)), pixel_size=0.1)
    assert tuple(answer.probabilities) == LATTICES
    assert sum(answer.probabilities.values()) == pytest.approx(1)
    assert answer.model == DEFAULT_LATTICE
    assert answer.calibrated
