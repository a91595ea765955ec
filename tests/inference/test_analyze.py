"""From an image to atoms, graph, cell and class: simulated truth, real files, scales, refusals."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from scipy.spatial import cKDTree

from atomvision_hub import analyze, load_structures, simulate_stem
from atomvision_hub.errors import AtomVisionError, UsageError
from atomvision_hub.inference import Analysis
from atomvision_hub.inference.analysis import analyze_in_steps
from atomvision_hub.inference.overlay import overlay
from atomvision_hub.inference.result import FirstLook
from atomvision_hub.microscopy import MicroscopeImage, read_images
from atomvision_hub.models.pretrained import DEFAULT_CLASSIFIER, pretrained_folder
from atomvision_hub.models.segmenter import Segmenter
from atomvision_hub.structures import flat_layer


def frame(name: str, shape: tuple[int, int] = (256, 256), pixel_size: float = 0.1):
    crystal = flat_layer(load_structures("reference")[name])
    return simulate_stem(crystal, shape=shape, pixel_size=pixel_size, rotation=17.0)


def noisy(image: np.ndarray, pixel_size: float, dose: float = 1000.0) -> np.ndarray:
    """Counts at a dose in electrons/Å²."""
    expected = image / image.mean() * dose * pixel_size**2
    return np.random.default_rng(0).poisson(expected).astype(np.float32)


def true_columns(simulated) -> np.ndarray:
    """(x, y) in px of the columns inside the view; atoms of one column once."""
    atoms = simulated.atoms
    _, first = np.unique(np.asarray(atoms["column"]), return_index=True)
    points = np.stack([np.asarray(atoms["x"]), np.asarray(atoms["y"])], 1)[first]
    rows, columns = simulated.image.shape
    inside = (points >= 3).all(1) & (points[:, 0] <= columns - 4) & (points[:, 1] <= rows - 4)
    return points[inside]


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A segmenter whose one channel is the view itself: probability 1 where an image is bright."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("segmenter")
    model = Segmenter(
        encoder="resnet18",
        depth=3,
        decoder_channels=(16, 8, 8),
        views=("linear",),
        known={"pixel_size": [0.1, 0.1], "field_of_view": [15.0, 30.0], "threshold": 0.5},
    )
    torch.nn.init.zeros_(model.head[2].weight)
    torch.nn.init.constant_(model.head[2].bias, 4.0)
    model.eval().save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("name", "lattice", "edges"),
    [("MoS2", "hexagonal", (3.18, 3.18)), ("FeSe", "square", None), ("WTe2-1Tp", "rectangular", None)],
)
def test_columns_cell_and_class_of_simulated_images(
    name: str, lattice: str, edges: tuple[float, float] | None
) -> None:
    simulated = frame(name, (300, 340))
    result = analyze(noisy(simulated.image, 0.1, 5000), pixel_size=0.1, segmenter="none")
    truth = true_columns(simulated)
    found = np.stack([result.atoms.x, result.atoms.y], 1)
    distance = cKDTree(found).query(truth)[0]
    assert (distance < 5).mean() >= 0.99
    assert np.sqrt((distance[distance < 5] ** 2).mean()) < 0.5  # px: 0.05 Å
    assert (cKDTree(truth).query(found[~result.atoms.edge])[0] < 5).mean() >= 0.99
    assert result.cell is not None
    assert result.cell.lattice == lattice
    assert result.cell.unit == "Å"
    if edges is not None:
        assert (result.cell.a, result.cell.b) == pytest.approx(edges, rel=0.01)
        assert result.cell.gamma == pytest.approx(120, abs=0.5)
    assert result.graph.order > 0.95
    assert result.lattice is not None
    assert sum(result.lattice.probabilities.values()) == pytest.approx(1)
    if name != "WTe2-1Tp":  # one that the small classifier knows well
        assert result.lattice.label == lattice


def test_scale_changes_pixels_not_lengths() -> None:
    """Twice the pixel size, unequal pixel sizes: the same crystal in Å."""
    simulated = frame("MoS2", (512, 512), 0.05)
    halves = simulated.image.reshape(256, 2, 256, 2).mean((1, 3))
    oblong = simulated.image.reshape(256, 2, 512).mean(1)
    options = {"segmenter": "none"}
    fine = analyze(simulated.image, pixel_size=0.05, **options)
    half = analyze(halves, pixel_size=0.1, **options)
    wide = analyze(oblong, pixel_size=(0.1, 0.05), **options)
    for other in (half, wide):
        assert len(other.atoms) == pytest.approx(len(fine.atoms), abs=4)
        assert other.graph.nearest_distance == pytest.approx(fine.graph.nearest_distance, abs=0.01)
        assert other.cell.a == pytest.approx(fine.cell.a, rel=0.005)
        assert other.lattice.label == fine.lattice.label == "hexagonal"
    assert wide.to_dict()["calibration"]["pixel_size"] == [0.1, 0.05]
    # x and y are pixels of the file: oblong ones in y.
    assert np.ptp(wide.atoms.y) < 256 < np.ptp(wide.atoms.x)


def test_uncalibrated_is_answered_in_pixels() -> None:
    image = noisy(frame("MoS2", (320, 320)).image, 0.1)
    known = analyze(image, pixel_size=0.1, segmenter="none")
    blind = analyze(image, segmenter="none")
    told = blind.to_dict()
    assert told["calibration"] == {
        "calibrated": False,
        "pixel_size": None,
        "source": "none",
        "apparent_pixel_size": pytest.approx(0.1, rel=0.2),
        "unit": "px",
    }
    assert any("pixel size unknown" in line for line in blind.warnings)
    assert blind.graph.unit == blind.cell.unit == "px"
    assert len(blind.atoms) == pytest.approx(len(known.atoms), rel=0.02)
    assert blind.graph.nearest_distance == pytest.approx(10 * known.graph.nearest_distance, rel=0.02)
    assert blind.cell.lattice == "hexagonal"
    assert blind.lattice.label == "hexagonal"
    assert told["atoms"]["x_angstrom"] == [None] * len(blind.atoms)


def test_a_support_and_a_slope_change_little() -> None:
    image = noisy(frame("MoS2", (320, 320)).image, 0.1, 5000)
    rows, columns = np.mgrid[:320, :320]
    uneven = image + image.max() * (rows / 100 + np.exp(-((columns - 90) ** 2 + (rows - 90) ** 2) / 30000))
    plain = analyze(image, pixel_size=0.1, segmenter="none", classifier="none")
    other = analyze(uneven, pixel_size=0.1, segmenter="none", classifier="none")
    near = cKDTree(np.stack([plain.atoms.x, plain.atoms.y], 1)).query(
        np.stack([other.atoms.x, other.atoms.y], 1)
    )[0]
    assert len(other.atoms) == pytest.approx(len(plain.atoms), rel=0.03)
    assert (near < 2).mean() > 0.97
    # Grey levels are those of the image that was given.
    assert other.atoms.mean.max() > 2 * plain.atoms.mean.max()


def test_dark_columns() -> None:
    image = frame("MoS2").image
    dark = 7 + image.max() - image
    bright = analyze(image, pixel_size=0.1, segmenter="none", classifier="none")
    told = analyze(dark, pixel_size=0.1, segmenter="none", classifier="none", contrast="dark")
    np.testing.assert_allclose(told.atoms.x, bright.atoms.x, atol=0.05)
    np.testing.assert_allclose(told.atoms.min, 7 + image.max() - bright.atoms.max, rtol=1e-3)
    assert (told.atoms.max >= told.atoms.min).all()
    assert told.contrast == "dark"
    for name, expected in (("BF", "dark"), ("HAADF", "bright"), ("Bright field", "dark"), ("BFG9", "bright")):
        shot = MicroscopeImage(dark, (0.1, 0.1), name, 0, Path("x.emd"), "", "", kind="stem")
        assert analyze(shot, segmenter="none", classifier="none").contrast == expected


def test_segmenter_decides_which_peaks_are_atoms(segmenter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = frame("MoS2", (300, 700)).image
    free = analyze(image, pixel_size=0.1, segmenter="none", classifier="none")
    kept = analyze(image, pixel_size=0.1, segmenter=segmenter, classifier="none")
    assert len(kept.atoms) == len(free.atoms)  # this one says "atom" everywhere
    np.testing.assert_allclose(kept.probability, 1 / (1 + np.exp(-4)), atol=1e-4)
    assert kept.models["segmenter"]["sha256"]
    assert free.probability is None

    def left_half(self: Segmenter, images: torch.Tensor, **_: object) -> torch.Tensor:
        # What a network would see of the position: the image's own brightness is all there is.
        return (images > 0.5).float()

    monkeypatch.setattr(Segmenter, "predict", left_half)
    bright = analyze(image, pixel_size=0.1, segmenter=segmenter, classifier="none")
    assert 0.3 * len(free.atoms) < len(bright.atoms) < 0.7 * len(free.atoms)  # molybdenum, not sulphur
    assert any("peaks for no atoms" in line for line in bright.warnings)


@pytest.mark.parametrize("shape", [(700, 2500), (100, 90)])
def test_tiles_of_the_segmenter_join(
    segmenter: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int]
) -> None:
    """Every pixel is answered once, by the tile that has it in its middle."""
    from atomvision_hub.inference import segmenting

    seen = []

    def same(self: Segmenter, images: torch.Tensor, **_: object) -> torch.Tensor:
        seen.append(images.shape[2:])
        return images

    monkeypatch.setattr(Segmenter, "predict", same)
    grey = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    network = Segmenter.from_pretrained(segmenter)
    answer = segmenting.atom_probability(network, grey, (0.1, 0.1), [])
    np.testing.assert_allclose(answer, grey / 255, atol=1e-6)
    assert max(max(part) for part in seen) <= 896 + 2 * 64
    # Resampled there and back: a smooth image survives.
    smooth = np.rint(127 + 100 * np.sin(np.arange(shape[1]) / 15) * np.ones((shape[0], 1))).astype(np.uint8)
    for scale in ((0.05, 0.05), (0.2, 0.1)):
        answer = segmenting.atom_probability(network, smooth, scale, [])
        assert answer.shape == shape
        assert np.abs(answer - smooth / 255)[5:-5, 5:-5].max() < 0.02


def test_segmenter_passes_where_it_knows_nothing(segmenter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from atomvision_hub.inference import segmenting

    coarse = analyze(frame("MoS2", (120, 120), 0.4).image, pixel_size=0.4, segmenter=segmenter)
    assert coarse.probability is None
    assert any("was not asked at 0.4" in line for line in coarse.warnings)
    monkeypatch.setattr(segmenting, "_MOST_PIXELS", 1000)
    large = analyze(frame("MoS2").image, pixel_size=0.1, segmenter=segmenter, classifier="none")
    assert any("megapixels" in line for line in large.warnings)


def test_what_is_told_is_json_and_csv(segmenter: Path) -> None:
    image = noisy(frame("FeSe").image, 0.1)
    result = analyze(image, pixel_size=0.1, segmenter=segmenter)
    told = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    count = told["atoms"]["count"]
    assert count == len(result.atoms) == told["graph"]["nodes"]
    assert all(len(values) == count for name, values in told["atoms"].items() if name != "count")
    assert told["atoms"]["x_angstrom"] == pytest.approx([x * 0.1 for x in told["atoms"]["x"]], abs=1e-3)
    assert sum(told["graph"]["bond_angle_cosines"]) == pytest.approx(1, abs=1e-3)
    assert len(told["graph"]["bond_angle_cosines"]) == 200
    assert set(told["models"]) == {"segmenter", "classifier"}
    lines = result.to_csv().splitlines()
    assert lines[0].startswith("x,y,x_angstrom,y_angstrom,radius,amplitude")
    assert len(lines) == count + 1
    picture = overlay(image, result)
    assert picture.startswith(b"\x89PNG")
    assert overlay(image, result) == picture


def test_nothing_there() -> None:
    """Noise has no atoms; that is an answer, too."""
    noise = np.random.default_rng(0).normal(100, 5, (200, 200))
    result = analyze(noise, pixel_size=0.1, segmenter="none")
    assert len(result.atoms) <= 2
    assert result.cell is None
    assert json.dumps(result.to_dict(), allow_nan=False)
    assert overlay(noise, result).startswith(b"\x89PNG")


def test_holes_and_tiny_units() -> None:
    """Pixels that were not measured, and currents of a picoampere."""
    image = frame("MoS2").image.astype(np.float64)
    broken = image.copy()
    broken[5, 7] = np.nan
    result = analyze(broken, pixel_size=0.1, segmenter="none", classifier="none")
    assert any("1 pixels that are not finite" in line for line in result.warnings)
    whole = analyze(image, pixel_size=0.1, segmenter="none", classifier="none")
    small = analyze(1e-9 + 1e-13 * image, pixel_size=0.1, segmenter="none", classifier="none")
    np.testing.assert_allclose(small.atoms.x, whole.atoms.x, atol=0.01)


def test_calibration_comes_from_the_file_or_beside_it(tmp_path: Path) -> None:
    image = np.rint(frame("MoS2").image / frame("MoS2").image.max() * 60000).astype(np.uint16)
    path = tmp_path / "scan.tif"
    tifffile.imwrite(path, image, imagej=True, resolution=(100.0, 100.0), metadata={"unit": "nm"})
    result = analyze(path, segmenter="none", classifier="none")
    assert result.calibration.source == "file"
    assert result.calibration.pixel_size == pytest.approx((0.1, 0.1))
    assert result.file == "scan.tif"
    assert len(result.sha256) == 64
    (tmp_path / "scan.tif.yaml").write_text("acquisition:\n  pixel_size: [0.2, 0.2]\n")
    beside = analyze(path, segmenter="none", classifier="none")
    assert beside.calibration.source == "sidecar"
    assert beside.calibration.pixel_size == (0.2, 0.2)
    given = analyze(path, pixel_size=0.1, segmenter="none", classifier="none")
    assert given.calibration.source == "given"


def test_a_small_view_is_too_small_for_a_network_but_not_for_the_fit() -> None:
    image, network = frame("MoS2", (100, 100)).image, str(pretrained_folder(DEFAULT_CLASSIFIER))
    fitted = analyze(image, pixel_size=0.1, segmenter="none").lattice
    assert fitted is not None
    assert fitted.label == "hexagonal"
    result = analyze(image, pixel_size=0.1, segmenter="none", classifier=network)
    assert len(result.atoms) > 10
    assert result.lattice is None
    assert any("no class of lattice: the image shows 10.0 Å" in line for line in result.warnings)


def test_refusals_are_one_line(tmp_path: Path, segmenter: Path) -> None:
    image = frame("MoS2", (64, 64)).image
    for wrong, options, message in (
        (image, {"pixel_size": 2.0}, r"2 Å/px is too coarse: a column of atoms would be 0.59 px wide"),
        (image, {"pixel_size": 0.02}, r"the image shows 1.3 Å; .* take a wider view"),
        (image[:10], {}, r"10 x 64 pixels show no lattice"),
        (np.ones((64, 64)), {}, "all pixels have the same value"),
        (np.zeros((3, 4, 5)), {}, r"this array is \(3, 4, 5\)"),
        (np.zeros((64, 64), complex), {}, "complex128"),
        (image, {"pixel_size": -1}, "must be a positive number"),
        (image, {"pixel_size": float("nan")}, "must be a positive number"),
        (image, {"contrast": "grey"}, "contrast must be"),
        (image, {"threshold": 1.5}, "threshold"),
        (image, {"segmenter": tmp_path}, "holds no model"),
        (image, {"segmenter": tmp_path / "none"}, "there is no folder"),
        (image, {"classifier": tmp_path, "segmenter": "none"}, "holds no model"),
        (tmp_path / "none.png", {}, "cannot be opened"),
    ):
        with pytest.raises(AtomVisionError, match=message) as caught:
            analyze(wrong, **options)
        assert "\n" not in str(caught.value)
    Image.new("L", (64, 64)).save(tmp_path / "one.png")
    with pytest.raises(UsageError, match=r"has 1 image\(s\)"):
        analyze(tmp_path / "one.png", index=1)


def real(shared_data: Path, name: str, **options: object) -> Analysis:
    pytest.importorskip("rsciio")
    return analyze(shared_data / name, segmenter="none", **options)


@pytest.mark.slow
@pytest.mark.timeout(3600)  # 2,000 columns of a large scan take long on a busy machine; only a hang ends here
def test_real_strontium_titanate(shared_data: Path) -> None:
    """Square cell of SrTiO3 (3.905 Å); the calibration of this scan is known to be some percent off."""
    result = real(shared_data, "microscopy/Acquisition_18.emd")
    assert result.calibration.source == "file"
    assert 1900 < len(result.atoms) < 2050
    assert result.graph.order > 0.9
    assert result.cell.lattice == "square"
    assert result.cell.a == pytest.approx(3.905, rel=0.07)
    assert result.graph.nearest_distance == pytest.approx(result.cell.a / np.sqrt(2), rel=0.1)
    assert result.lattice.label == "square"


@pytest.mark.slow
def test_real_lattice_of_strontium_titanate(shared_data: Path) -> None:
    result = real(shared_data, "microscopy/Acquisition_18.emd")
    found = result.parameters
    assert found.lattice == "square"
    # Within the pixel size's error that is assumed, the deviation is 5 %; the angle within its own.
    for edge, error in ((found.a, found.total_errors[0]), (found.b, found.total_errors[1])):
        assert 0.02 < edge / 3.905 - 1 < 0.07
        assert abs(edge - 3.905) < 2 * error
    assert abs(found.gamma - 90) < 2 * found.gamma_error
    assert result.spectrum.indexed >= 10
    assert len(result.motif.sites) == 2
    assert (result.motif.sites[1].x, result.motif.sites[1].y) == (
        pytest.approx(0.5, abs=0.02),
        pytest.approx(0.5, abs=0.02),
    )


@pytest.mark.slow
def test_real_gold_particles(shared_data: Path) -> None:
    """Particles in many orientations are not given one lattice; one of them, cropped, shows that of gold."""
    whole = real(shared_data, "microscopy/Au_nanoparticle_HAADF.emd")
    assert whole.parameters is None
    assert "crop" in whole.no_lattice
    image = read_images(shared_data / "microscopy/Au_nanoparticle_HAADF.emd")[0]
    part = dataclasses.replace(image, data=image.data[896:1152, 1344:1600])
    found = analyze(part, segmenter="none", calibration_error=0.1).parameters
    assert found.lattice == "centered_rectangular"
    # Gold along [110]: 2.88 x 4.08 Å; the calibration of this scan is known to be a tenth off.
    assert found.b / found.a == pytest.approx(np.sqrt(2), rel=0.03)
    assert abs(found.a - 2.884) < 2 * found.total_errors[0]


@pytest.mark.parametrize("name", ["multi_signal.dm3", "olympus_SIS.tif", "haadf_atoms/Ptporph3.tif"])
def test_real_images_without_a_lattice(shared_data: Path, name: str) -> None:
    if name.startswith("olympus"):
        pytest.importorskip("imagecodecs")
    result = real(shared_data, f"microscopy/{name}")
    assert result.parameters is None
    assert result.no_lattice
    assert any(line.startswith("no lattice: ") for line in result.warnings)


def test_real_tunnelling_scan(shared_data: Path) -> None:
    """Atoms of a tunnelling image are wider than columns: their width comes from the image."""
    result = real(shared_data, "stm/instrument/STM_nanonis_generic_4_5.sxm")
    assert result.name == "Z forward"
    assert 95 < len(result.atoms) < 120
    assert result.graph.order > 0.85
    assert result.graph.nearest_distance == pytest.approx(3.47, abs=0.1)
    assert result.calibration.apparent is not None


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("test_diffraction_pattern.dm3", "a diffraction pattern shows no atoms"),
        ("08_carbon.dm3", "a spectrum"),
        ("temp.mrc", r"2 Å/px is too coarse"),
        ("dmTest_float32_nonSquare_diffPixelSize.dm4", r"10 Å/px is too coarse"),
        ("64x64_TEM_images_acquire_1.ser", "too coarse"),
        ("fei_example_tem_stack.emd", "3 x 3 pixels"),
    ],
)
def test_real_files_that_show_no_atoms(shared_data: Path, name: str, reason: str) -> None:
    with pytest.raises(AtomVisionError, match=reason) as caught:
        real(shared_data, f"microscopy/{name}")
    assert str(caught.value).startswith(name)


def test_first_frame_by_default_others_by_index(shared_data: Path) -> None:
    pytest.importorskip("rsciio")
    images = read_images(shared_data / "stm/instrument/Au_mica_2023_Y_A_diPAMY_195.sxm")
    chosen = real(shared_data, "stm/instrument/Au_mica_2023_Y_A_diPAMY_195.sxm", classifier="none")
    assert images[0].data.min() == images[0].data.max()  # its first channel is empty
    assert chosen.index == 2
    other = real(shared_data, "stm/instrument/Au_mica_2023_Y_A_diPAMY_195.sxm", index=3, classifier="none")
    assert other.name == images[3].name


@pytest.mark.parametrize("pixel_size", [0.1, None])
def test_the_lattice_of_an_image_comes_before_its_atoms(pixel_size: float | None) -> None:
    image = frame("MoS2").image
    first, whole = analyze_in_steps(image, pixel_size=pixel_size, segmenter="none")
    assert isinstance(first, FirstLook)
    assert isinstance(whole, Analysis)
    assert first.lattice == whole.lattice
    assert first.parameters is not None
    assert whole.parameters == dataclasses.replace(first.parameters, origin=whole.parameters.origin)
    assert first.calibration == whole.calibration
    # A network would be asked at the end.
    steps = analyze_in_steps(image, pixel_size=pixel_size, segmenter="none", classifier="none")
    assert [type(one) for one in steps] == [Analysis]


def test_fitted_columns_are_told_apart_and_counted() -> None:
    """Columns of black phosphorus stand in pairs that the probe merges: peaks show one of each two."""
    simulated = frame("black-P")
    grey = np.round(255 * simulated.image / simulated.image.max())
    truth = true_columns(simulated)
    peaks = analyze(grey, pixel_size=0.1, classifier="none")
    fitted = analyze(grey, pixel_size=0.1, classifier="none", fit_columns=True)
    assert peaks.residual is None
    assert fitted.residual == pytest.approx(1, abs=0.05)
    told = fitted.to_dict()["fitted"]
    assert told["residual"] == pytest.approx(fitted.residual, abs=1e-5)
    assert told["profile"] == [{"height": 1, "sigma": pytest.approx(0.5, rel=0.01)}]
    assert told["unit"] == "Å"
    assert len(peaks.atoms) < 0.7 * len(truth)
    distance = cKDTree(np.stack([fitted.atoms.x, fitted.atoms.y], 1)).query(truth)[0]
    assert distance.max() < 0.3  # px: 0.03 Å
    assert not any("fitted" in warning for warning in fitted.warnings)


def test_an_image_that_columns_do_not_explain_keeps_its_peaks() -> None:
    simulated = frame("MoS2")
    rows, columns = np.mgrid[:256, :256]
    ramp = simulated.image / simulated.image.max() + 0.004 * rows + 0.3 * np.sin(columns / 9)
    result = analyze(ramp, pixel_size=0.1, classifier="none", fit_columns=True)
    assert result.residual is None
    assert any("do not explain the" in warning for warning in result.warnings)
    flat = analyze(simulated.image, pixel_size=(0.1, 0.11), classifier="none", fit_columns=True)
    assert any("square pixels" in warning for warning in flat.warnings)
