"""Real files of real instruments: shape, type, pixel size and kind of each, checked against its own tags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atomvision_hub.microscopy import MicroscopeImage, MicroscopyError, read_images

pytest.importorskip("rsciio")
pytest.importorskip("h5py")

#: File -> (name, shape, dtype, pixel size in Å, kind) of its images.
IMAGES: dict[str, list[tuple[str, tuple[int, int], str, Any, str | None]]] = {
    "microscopy/64x64_TEM_images_acquire.emi": [
        ("image", (64, 64), "float32", (62.818336, 62.818336), "tem")
    ],
    "microscopy/64x64_TEM_images_acquire_1.ser": [
        ("image", (64, 64), "float32", (62.818336, 62.818336), None)
    ],
    "microscopy/Acquisition_18.emd": [("single", (1024, 1024), "uint16", (0.12246525, 0.12246525), None)],
    "microscopy/Au_nanoparticle_HAADF.emd": [
        ("HAADF", (2048, 2048), "uint16", (0.07498401, 0.07498401), "stem")
    ],
    # HFW 0.202732 m over 768 columns, VFW 0.135155 m over the 512 rows above the data bar.
    "microscopy/FEI-Helios-navcam.tif": [("Nav-Cam", (551, 768), "uint8", (2639746.1, 2639739.6), None)],
    # Cell of 908.66 Å over 16 pixels.
    "microscopy/HAADFscan.mrc": [("image", (16, 16), "uint16", (56.791313, 56.791313), None)],
    "microscopy/STEM_HAADF-DF4-DF2-BF_Diffraction_Micro.emd": [
        (name, (128, 128), "uint16", (873.70796, 873.70796), "stem") for name in ("HAADF", "DF2", "BF", "DF4")
    ],
    "microscopy/dmTest_float32_nonSquare_diffPixelSize.dm4": [
        ("dmTest_float32_nonSquare_diffPixelSize", (64, 128), "float32", (2.0, 10.0), None)
    ],
    # PixelSize 8.17288e-12 m.
    "microscopy/fei_example_tem_stack.emd": [("Ceta", (3, 3), "int16", (0.08172883, 0.08172883), None)] * 2,
    "microscopy/multi_signal.dm3": [("HAADF", (512, 512), "uint16", (0.17751578, 0.17751578), "stem")],
    "microscopy/olympus_SIS.tif": [("image", (101, 112), "uint16", (0.23927918, 0.23927918), None)],
    "microscopy/temp.mrc": [("image", (128, 128), "float32", (2.0, 2.0), None)] * 3,
    "microscopy/test_STEM_image.dm3": [
        ("test_STEM_image", (68, 68), "uint32", (2.4853802, 2.4853802), "stem")
    ],
    "microscopy/test_diffraction_pattern.dm3": [
        ("test_diffraction_pattern", (87, 87), "int32", None, "diffraction")
    ],
    "microscopy/test_loading_image_saved_with_DM.tif": [
        ("image", (68, 68), "int32", (1686.7469, 1686.7469), None)
    ],
    **{
        f"microscopy/haadf_atoms/Ptporph{n}.tif": [("image", (512, 512), "uint16", None, None)]
        for n in (0, 2, 3, 4, 5, 6)
    },
    **{
        f"stm/instrument/{name}.sxm": [
            (f"{channel} {way}", (256, 256), "float32", (0.15625, 0.15625), "stm")
            for channel in ("Z", "Current")
            for way in ("forward", "backward")
        ]
        for name in ("Au_mica_2023_Y_A_diPAMY_195", "STM_nanonis_generic_4_5")
    },
}
REFUSED = {"microscopy/08_carbon.dm3": ("content", r"08_carbon\.dm3 holds a spectrum \(EELS\), not an image")}


def test_every_file_is_in_the_tables(shared_data: Path) -> None:
    there = {
        path.relative_to(shared_data).as_posix()
        for folder in ("microscopy", "stm/instrument")
        for path in (shared_data / folder).rglob("*")
        if path.is_file() and path.suffix != ".csv"
    }
    assert there == IMAGES.keys() | REFUSED.keys()


@pytest.mark.parametrize("name", IMAGES, ids=lambda name: Path(name).name)
def test_image(shared_data: Path, name: str) -> None:
    found = read_images(shared_data / name)
    wanted = IMAGES[name]
    assert [(image.name, image.data.shape, image.data.dtype.name, image.kind) for image in found] == [
        (label, shape, dtype, kind) for label, shape, dtype, _, kind in wanted
    ]
    for image, (*_, size, _) in zip(found, wanted, strict=True):
        if size is None:
            assert image.pixel_size is None
        else:
            assert image.pixel_size == pytest.approx(size, rel=1e-6)
        assert image.data.flags.c_contiguous
        assert image.data.dtype.isnative
    assert [image.index for image in found] == list(range(len(found)))


@pytest.mark.parametrize("name", REFUSED)
def test_refused(shared_data: Path, name: str) -> None:
    step, reason = REFUSED[name]
    with pytest.raises(MicroscopyError, match=reason) as caught:
        read_images(shared_data / name)
    assert caught.value.step == step


def test_calibrations_agree_with_the_tags(shared_data: Path) -> None:
    """The numbers of the files themselves, in their own units."""
    gold = read_images(shared_data / "microscopy/Au_nanoparticle_HAADF.emd")[0]
    tags = gold.original["original_metadata"]["BinaryResult"]["PixelSize"]
    assert gold.pixel_size == pytest.approx((float(tags["height"]) * 1e10, float(tags["width"]) * 1e10))
    sis = read_images(shared_data / "microscopy/olympus_SIS.tif")[0]
    tags = sis.original["original_metadata"]["sis_metadata"]
    assert sis.pixel_size == pytest.approx((tags["pixelsizey"] * 1e10, tags["pixelsizex"] * 1e10))
    pattern = read_images(shared_data / "microscopy/test_diffraction_pattern.dm3")[0]
    assert pattern.reciprocal_pixel_size == pytest.approx((0.01744329, 0.01744329), rel=1e-6)  # 0.174 1/nm


def test_berkeley_emd_is_not_transposed(shared_data: Path) -> None:
    """The reader swaps the axes of these files; a scan line runs along a row."""
    import h5py

    path = shared_data / "microscopy/Acquisition_18.emd"
    with h5py.File(path) as file:
        stored = file["data/single/data"][()]
        assert file["data/single/dim1"].attrs["name"] == b"Y"
    assert np.array_equal(read_images(path)[0].data, stored)


def test_mapped_metadata(shared_data: Path) -> None:
    """The reader leaves the instrument empty until the mapping is applied that it returns."""
    image = read_images(shared_data / "microscopy/test_STEM_image.dm3")[0]
    assert image.original["metadata"]["Acquisition_instrument"]["TEM"]["beam_energy"] == 200.0
    assert image.reader.startswith("rosettasciio ")
    assert image.reader.endswith(" digitalmicrograph")


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("multi_signal.dm3", "left out beside it: Plot is no image but 512 values"),
        ("olympus_SIS.tif", "1 preview picture(s) beside it left out"),
        ("FEI-Helios-navcam.tif", "the last 39 rows are the data bar"),
        ("dmTest_float32_nonSquare_diffPixelSize.dm4", "rows and columns have different pixel sizes"),
        ("haadf_atoms/Ptporph0.tif", "not calibrated"),
    ],
)
def test_notes(shared_data: Path, name: str, note: str) -> None:
    assert any(line.startswith(note) for line in read_images(shared_data / "microscopy" / name)[0].notes)


def test_forward_and_backward_show_the_same_surface(shared_data: Path) -> None:
    images = read_images(
        shared_data / "stm/instrument/STM_nanonis_generic_4_5.sxm", select=["Z forward", "Z backward"]
    )
    forward, backward = (image.data.astype(float) for image in images)
    assert np.corrcoef(forward.ravel(), backward.ravel())[0, 1] > 0.95
    assert np.corrcoef(forward.ravel(), backward[:, ::-1].ravel())[0, 1] < 0.9


def test_atoms_lie_where_experts_saw_them(shared_data: Path) -> None:
    """Pixel positions X, Y of single Pt atoms: x along columns, y along rows."""
    for number in (0, 2, 3):
        stem = shared_data / f"microscopy/haadf_atoms/Ptporph{number}"
        image = read_images(stem.with_suffix(".tif"))[0].data
        x, y = np.loadtxt(stem.with_suffix(".csv"), delimiter=",", skiprows=1, usecols=(0, 1)).astype(int).T
        seen = (x < image.shape[1]) & (y < image.shape[0])
        assert image[y[seen], x[seen]].mean() > 1.6 * image.mean()


def images_or_line(path: Path) -> list[MicroscopeImage]:
    """Return the images of a damaged file, or none where it was refused in one line."""
    try:
        return read_images(path)
    except MicroscopyError as problem:
        line = str(problem)
    assert line.startswith(path.name)
    assert "\n" not in line
    return []


@pytest.mark.parametrize("part", [0.02, 0.3, 0.9, 0.999])
def test_cut_files_never_give_other_pixels(shared_data: Path, tmp_path: Path, part: float) -> None:
    names = [name for name in IMAGES if not name.endswith(".emi") and "haadf_atoms" not in name]
    for name in names:
        content = (shared_data / name).read_bytes()
        cut = tmp_path / Path(name).name
        cut.write_bytes(content[: int(part * len(content))])
        found = images_or_line(cut)
        whole = read_images(shared_data / name)
        for one, other in zip(found, whole if found else [], strict=True):
            assert np.array_equal(one.data, other.data)
            assert one.pixel_size == other.pixel_size


def test_damaged_files_are_told(shared_data: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for name in IMAGES:
        if name.endswith(".emi") or "haadf_atoms" in name:
            continue
        content = np.frombuffer((shared_data / name).read_bytes(), np.uint8)
        for number in range(3):
            spoilt = content.copy()
            places = generator.integers(4, min(len(spoilt), 3000), 8)
            spoilt[places] = generator.integers(0, 256, 8)
            path = tmp_path / f"{number}-{Path(name).name}"
            path.write_bytes(spoilt.tobytes())
            images_or_line(path)
