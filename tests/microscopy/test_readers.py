"""Formats by files of our own making, and files that mean harm."""

from __future__ import annotations

import builtins
import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from atomvision_hub.errors import MissingExtraError, UsageError
from atomvision_hub.microscopy import (
    MicroscopyError,
    frame,
    read_images,
    rosetta,
    size_limits,
    write_demo_file,
)

Write = Callable[..., Path]
Make = Callable[..., bytes]
TYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]
RAMP = np.arange(12 * 10, dtype=np.uint16).reshape(12, 10) * 300


def tiff_bytes(data: np.ndarray, **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, data, **options)
    return stream.getvalue()


def picture_bytes(data: np.ndarray, form: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(data).save(stream, form, **options)
    return stream.getvalue()


def refusal(path: Path, step: str, match: str) -> None:
    with pytest.raises(MicroscopyError, match=match) as caught:
        read_images(path)
    assert caught.value.step == step
    assert caught.value.reason == str(caught.value)
    assert "\n" not in caught.value.reason
    assert str(path.parent) not in caught.value.reason


# TIFF


def test_imagej_stack_with_calibration(write: Write) -> None:
    stack = np.stack([RAMP, RAMP + 1, RAMP + 2])
    options = {"imagej": True, "resolution": (50.0, 40.0), "metadata": {"unit": "nm", "axes": "TYX"}}
    path = write("stack.tif", tiff_bytes(stack, **options))
    images = read_images(path)
    assert [(image.frame, image.frames, image.index) for image in images] == [(0, 3, 0), (1, 3, 1), (2, 3, 2)]
    assert np.array_equal([image.data for image in images], stack)
    assert images[0].pixel_size == pytest.approx((0.25, 0.2))
    assert images[0].field_of_view == pytest.approx((3.0, 2.0))
    assert len(read_images(path, max_frames=2)) == 2
    refusal(write("short.tif", path.read_bytes()[:-40]), "read", r"short\.tif is (cut short|damaged)")


def test_large_imagej_stack_behind_one_page(write: Write) -> None:
    """ImageJ writes one page and all frames behind it when a stack is large."""
    body = np.stack([RAMP, RAMP + 7]).astype("<u2").tobytes()
    single = tiff_bytes(RAMP, description="ImageJ=1.54f\nimages=2\nslices=2\nunit=micron\n", metadata=None)
    with tifffile.TiffFile(io.BytesIO(single)) as tif:
        start = tif.pages[0].dataoffsets[0]
    images = read_images(write("big.tif", single[:start] + body))
    assert np.array_equal(images[1].data, RAMP + 7)


def test_ome_calibration_and_its_other_files_are_not_opened(write: Write, tmp_path: Path) -> None:
    options = {"ome": True, "metadata": {"axes": "YX", "PhysicalSizeX": 0.2, "PhysicalSizeXUnit": "nm"}}
    content = tiff_bytes(RAMP, **options | {"metadata": options["metadata"] | {"PhysicalSizeY": 0.4}})
    image = read_images(write("one.ome.tif", content))[0]
    assert image.pixel_size == pytest.approx((4000.0, 2.0))  # OME's default unit is µm
    write("secret.tif", tiff_bytes(RAMP + 1))
    description = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<Image ID="I:0"><Pixels ID="P:0" DimensionOrder="XYZCT" Type="uint16" SizeX="10" SizeY="12" '
        'SizeZ="2" SizeC="1" SizeT="1"><TiffData IFD="0" FirstZ="0"/><TiffData IFD="0" FirstZ="1">'
        '<UUID FileName="secret.tif">urn:uuid:1</UUID></TiffData></Pixels></Image></OME>'
    )
    images = read_images(write("two.ome.tif", tiff_bytes(RAMP, description=description, metadata=None)))
    assert [image.data.tolist() for image in images] == [RAMP.tolist()]


def test_print_resolution_is_no_calibration(write: Write) -> None:
    image = read_images(write("scan.tif", tiff_bytes(RAMP, resolution=(300, 300), resolutionunit="INCH")))[0]
    assert image.pixel_size is None
    assert image.notes == ("not calibrated: the file tells no pixel size",)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_all_types_of_pixels_survive(write: Write, dtype: str, byteorder: str) -> None:
    data = (np.arange(120).reshape(12, 10) - (60 if dtype[0] != "u" else 0)).astype(dtype)
    image = read_images(write("a.tif", tiff_bytes(data, byteorder=byteorder, compression="zlib")))[0]
    assert image.data.dtype == np.dtype(dtype)
    assert np.array_equal(image.data, data)


def test_pages_of_different_shapes_are_images_of_their_own(write: Write, tmp_path: Path) -> None:
    path = tmp_path / "pages.tif"
    for page in (RAMP, RAMP, RAMP[:5]):
        tifffile.imwrite(path, page, append=True, metadata=None)
    shapes = [(image.data.shape, image.frame, image.frames) for image in read_images(path)]
    assert shapes == [((12, 10), 0, 2), ((12, 10), 1, 2), ((5, 10), 0, 1)]


def test_grey_and_coloured_rgb(write: Write) -> None:
    grey = np.repeat((RAMP // 150)[..., None], 3, axis=2).astype(np.uint8)
    assert np.array_equal(
        read_images(write("grey.tif", tiff_bytes(grey, photometric="rgb")))[0].data, grey[..., 0]
    )
    coloured = grey.copy()
    coloured[2, 3, 0] += 40
    for name, content in {
        "c.tif": tiff_bytes(coloured, photometric="rgb"),
        "c.png": picture_bytes(coloured),
    }.items():
        refusal(write(name, content), "content", rf"{name} is a picture in colours, not measured")


def test_complex_tiff(write: Write) -> None:
    refusal(
        write("fft.tif", tiff_bytes(RAMP.astype(np.complex64))), "content", "complex numbers, not intensities"
    )


def test_zeiss_calibration(write: Write) -> None:
    """Unnamed parameters come first, the fourth is the pixel size on a display of 1024 columns."""
    text = "\r\n".join(["0", "0", "0", "2.5e-9", "1.0", "AP_MAG", "Mag = 10.00 K X", ""])
    content = tiff_bytes(RAMP, extratags=[(34118, "s", 0, text, True)], metadata=None)
    image = read_images(write("zeiss.tif", content))[0]
    assert image.pixel_size == pytest.approx((2.5e-9 * 1e10 * 1024 / 10,) * 2)
    assert image.kind == "sem"


def test_tvips_calibration(write: Write) -> None:
    header = np.zeros(1, tifffile.TIFF.TVIPS_HEADER_V1)
    header["Version"] = 2
    second = np.zeros(1, tifffile.TIFF.TVIPS_HEADER_V2)
    second["Magic"], second["PixelSizeX"], second["PixelSizeY"] = 0xAAAAAAAA, 0.25, 0.5
    body = header.tobytes() + second.tobytes()
    content = tiff_bytes(RAMP, extratags=[(37706, "B", len(body), body, True)], metadata=None)
    assert read_images(write("tvips.tif", content))[0].pixel_size == pytest.approx((5.0, 2.5))


def test_orientation_is_told(write: Write) -> None:
    image = read_images(write("a.tif", tiff_bytes(RAMP, extratags=[(274, "H", 1, 3, True)])))[0]
    assert "stored with orientation BOTRIGHT, shown as stored" in image.notes


# PNG and JPEG


@pytest.mark.parametrize("mode", ["L", "I;16", "RGB", "LA", "P", "1"])
def test_png_modes(write: Write, mode: str) -> None:
    grey = (RAMP // 150).astype(np.uint8)
    picture = Image.fromarray(RAMP if mode == "I;16" else grey)
    picture = picture if mode == "I;16" else picture.convert(mode)
    stream = io.BytesIO()
    picture.save(stream, "PNG", dpi=(300, 300))
    image = read_images(write("a.png", stream.getvalue()))[0]
    wanted = {"I;16": RAMP, "1": np.asarray(picture).astype(np.uint8)}.get(mode, grey)
    assert np.array_equal(image.data, wanted)
    assert image.data.dtype == wanted.dtype
    assert (image.pixel_size, image.kind) == (None, None)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_png_of_48_bits_is_not_halved(write: Write) -> None:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0))
    body = png_chunk(b"IDAT", zlib.compress((b"\0" + bytes(range(12))) * 2))
    content = b"\x89PNG\r\n\x1a\n" + header + body + png_chunk(b"IEND", b"")
    refusal(write("deep.png", content), "content", r"deep\.png has 16 bits in several channels")


def test_jpeg_says_that_it_is_lossy(write: Write) -> None:
    grey = np.repeat((RAMP // 150)[..., None], 3, axis=2).astype(np.uint8)
    image = read_images(write("a.jpg", picture_bytes(grey, "JPEG")))[0]
    assert image.data.shape == RAMP.shape
    assert "a lossy JPEG: intensities are not as measured" in image.notes


def test_decompression_bomb(write: Write) -> None:
    for side in (12_000, 60_000):
        header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
        body = png_chunk(b"IDAT", zlib.compress(bytes(1000)))
        bomb = write("bomb.png", b"\x89PNG\r\n\x1a\n" + header + body + png_chunk(b"IEND", b""))
        refusal(bomb, "size", r"bomb\.png (unfolds|declares)")


# Nanonis


@pytest.mark.parametrize("direction", ["down", "up"])
def test_nanonis_planes_lie_as_the_surface(write: Write, direction: str, sxm_bytes: Make) -> None:
    surface = np.arange(6 * 8, dtype=np.float32).reshape(6, 8)
    stored = surface if direction == "down" else surface[::-1]
    planes = np.stack([stored, stored[:, ::-1], stored])
    images = read_images(write("scan.sxm", sxm_bytes(planes, direction=direction)))
    assert [image.name for image in images] == ["Z forward", "Z backward", "LI Demod 1 X forward"]
    for image in images:
        assert np.array_equal(image.data, surface)
        assert image.pixel_size == pytest.approx((20 / 6, 40 / 8))
        assert image.kind == "stm"
    header = images[0].original["original_metadata"]["nanonis"]
    assert header["BIAS"] == "-2.500E-1"
    assert header["Z-CONTROLLER"]["Setpoint"] == "5.000E-10 A"
    assert images[2].original["original_metadata"]["channel"] == {"name": "LI Demod 1 X", "unit": "A"}


def test_stopped_nanonis_scan_keeps_nan(write: Write, sxm_bytes: Make) -> None:
    planes = np.ones((3, 6, 8), np.float32)
    planes[:, 4:] = np.nan
    image = read_images(write("scan.sxm", sxm_bytes(planes)))[0]
    assert np.isnan(image.data[4:]).all()
    assert "the scan was stopped: pixels that were not reached are NaN" in image.notes


def test_a_channel_without_values_is_left_out(write: Write, sxm_bytes: Make) -> None:
    planes = np.ones((3, 6, 8), np.float32)
    planes[2] = np.nan
    images = read_images(write("scan.sxm", sxm_bytes(planes)))
    assert [image.name for image in images] == ["Z forward", "Z backward"]
    assert (
        "left out beside it: LI Demod 1 X forward has no finite pixel; nothing was measured"
        in images[0].notes
    )
    refusal(
        write("none.sxm", sxm_bytes(planes * np.nan)), "content", r"none\.sxm: Z forward has no finite pixel"
    )


def test_broken_nanonis(write: Write, sxm_bytes: Make) -> None:
    whole = sxm_bytes(np.ones((3, 6, 8), np.float32))
    refusal(write("cut.sxm", whole[:-4]), "read", r"cut\.sxm is cut short: 572 of 576 bytes of pixels")
    refusal(write("head.sxm", whole[:200]), "read", "has a header without an end")
    huge = whole.replace(b"       8       6", b"  900000  900000")
    refusal(write("huge.sxm", huge), "size", "declares 3 x 900000 x 900000 pixels")
    refusal(
        write("negative.sxm", whole.replace(b"       8       6", b"      -8      -6")), "read", "SCAN_PIXELS"
    )


# Formats that rosettasciio reads


def test_mrc_frames_and_lies(write: Write, mrc_bytes: Make) -> None:
    pytest.importorskip("rsciio")
    data = np.random.default_rng(0).normal(size=(3, 12, 10)).astype(np.float32)
    images = read_images(write("a.mrc", mrc_bytes(data)))
    assert np.array_equal([image.data for image in images], data)
    assert images[0].pixel_size == pytest.approx((2.0, 2.0))
    lie = write("lie.mrc", mrc_bytes(data, sections=10**6))
    refusal(lie, "read", r"lie\.mrc is cut short: 2,464 of 480,001,024 bytes")
    refusal(
        write("huge.mrc", mrc_bytes(data, sections=2**30)), "size", "declares 1073741824 x 12 x 10 pixels"
    )
    refusal(write("none.mrc", bytes(2048)), "format", "is no MRC file")


@pytest.mark.parametrize("order", ["yx", "xy"])
def test_berkeley_emd_axes_by_name(berkeley: Write, order: str) -> None:
    stored = RAMP if order == "yx" else RAMP.T
    steps = {"x": ("x", 0.02, "nm"), "y": ("y", 0.03, "n_m")}
    image = read_images(berkeley("a.emd", stored, [steps[axis] for axis in order]))[0]
    assert np.array_equal(image.data, RAMP)
    assert image.pixel_size == pytest.approx((0.3, 0.2))


@pytest.mark.parametrize("names", ["tyx", "yxt", "xyt", "abc"])
def test_berkeley_emd_stacks(berkeley: Write, names: str) -> None:
    """Axes without the names x and y lie as they are stored."""
    stack = np.stack([RAMP, RAMP + 1, RAMP + 2])  # t, y, x
    stored = stack if names == "abc" else stack.transpose(["tyx".index(name) for name in names])
    axes = [(name, 0.1, "s" if name == "t" else "nm") for name in names]
    images = read_images(berkeley("a.emd", stored, axes))
    assert np.array_equal([image.data for image in images], stack)
    assert images[0].pixel_size == pytest.approx((1.0, 1.0))


def test_hostile_hdf5(berkeley: Write, tmp_path: Path) -> None:
    import h5py

    axes = [("y", 0.1, "nm"), ("x", 0.1, "nm")]
    other = berkeley("other.emd", RAMP, axes)
    link = berkeley("link.emd", RAMP, axes, secret=h5py.ExternalLink(str(other), "/data/image/data"))
    refusal(link, "read", r"link\.emd links to another file at secret; such files are not followed")
    virtual, outside, huge = (berkeley(f"{name}.emd", RAMP, axes) for name in ("virtual", "outside", "huge"))
    with h5py.File(virtual, "a") as file:
        layout = h5py.VirtualLayout(shape=(12, 10), dtype="u2")
        layout[:] = h5py.VirtualSource(str(other), "/data/image/data", shape=(12, 10))
        file.create_virtual_dataset("data/image/more", layout)
    refusal(virtual, "read", r"virtual\.emd keeps data/image/more in another file")
    with h5py.File(outside, "a") as file:
        external = [(str(tmp_path / "passwd"), 0, 240)]
        file.create_dataset("data/image/more", (12, 10), "u2", external=external)
    refusal(outside, "read", r"outside\.emd keeps data/image/more in another file")
    with h5py.File(huge, "a") as file:
        file.create_dataset("data/image/more", (10**6, 10**6), "u2", chunks=(100, 100), compression="gzip")
    assert huge.stat().st_size < 100_000
    refusal(huge, "size", r"huge\.emd declares 1000000 x 1000000 pixels")


@pytest.mark.parametrize("maps", [False, True])
def test_velox_images_beside_maps_of_spectra(tmp_path: Path, maps: bool) -> None:
    """Maps are left out, whatever else is installed, and however large they are."""
    h5py = pytest.importorskip("h5py")
    facts = {
        "Acquisition": {"AcquisitionStartDatetime": {"DateTime": "1481119131"}},
        "BinaryResult": {
            "PixelSize": {"height": "2E-11", "width": "2E-11"},
            "PixelUnitX": "m",
            "PixelUnitY": "m",
            "Offset": {"x": "0", "y": "0"},
            "Detector": "HAADF",
            "DetectorIndex": "0",
        },
        "Detectors": {"Detector-0": {"DetectorName": "HAADF", "DetectorType": "ScanningDetector"}},
        "Scan": {"FrameTime": "1"},
    }
    text = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    path = tmp_path / "map.emd"
    with h5py.File(path, "w") as file:
        file["Version"] = [json.dumps({"format": "Velox", "version": "11"})]
        file["Data/Image/0a/Data"] = RAMP[:, :, None]
        file["Data/Image/0a/Metadata"] = np.pad(text, (0, 60_000 - len(text)))[:, None]
        if maps:
            file["Data/SpectrumImage/0b/SpectrumImageSettings"] = ["{}"]
            file.create_dataset("Data/SpectrumStream/0c/Data", (2**32, 1), "u2", chunks=(2**16, 1))
    (image,) = read_images(path)
    assert np.array_equal(image.data, RAMP)
    assert image.name == "HAADF"
    assert image.pixel_size == pytest.approx((0.2, 0.2))
    assert image.notes == (("left out beside it: a map of spectra (EDS)",) if maps else ())


def test_ser_series(write: Write, ser_bytes: Make) -> None:
    pytest.importorskip("rsciio")
    data = np.random.default_rng(0).normal(size=(3, 12, 10)).astype(np.float32)
    content = ser_bytes(data)
    images = read_images(write("a_1.ser", content))
    # TIA counts rows from the bottom, and its reader turns them.
    assert [image.data.shape for image in images] == [(12, 10)] * 3
    assert images[0].pixel_size == pytest.approx((2.0, 2.0))
    for image, frame_ in zip(images, data, strict=True):
        assert np.array_equal(image.data, frame_[::-1])
    refusal(write("cut.ser", content[:1000]), "read", r"cut\.ser is damaged or cut short")


def test_lying_ser(write: Write) -> None:
    header = b"II\x97\x01\x20\x02" + struct.pack("<6i", 0x4122, 0x4142, 2**30, 2**30, 60, 1)
    refusal(
        write("lie.ser", header + bytes(64)), "read", r"lie\.ser declares 1,073,741,824 images in 94 bytes"
    )
    spectrum = b"II\x97\x01\x20\x02" + struct.pack("<6i", 0x4120, 0x4142, 1, 1, 60, 1)
    refusal(write("line.ser", spectrum + bytes(64)), "content", "holds spectra, not images")
    refusal(
        write("alone.emi", b"JK\x02\0" + bytes(64)), "read", r"alone\.emi is a header alone; put its \.ser"
    )


def test_a_spectrum_beside_an_image_is_left_out() -> None:
    def found(data: np.ndarray, *units: str) -> dict[str, Any]:
        axes = [{"name": "", "scale": 1.0, "units": unit} for unit in units]
        return {
            "data": data,
            "axes": axes,
            "metadata": {"Signal": {"signal_type": ""}},
            "original_metadata": {},
        }

    spectrum = found(np.ones((5, 100)), "nm", "eV")
    (signal,) = rosetta._signals([spectrum, found(RAMP, "pm", "pm")], Path("a.dm4"))
    assert signal.scale == pytest.approx((0.01, 0.01))
    assert signal.notes == ("left out beside it: holds a spectrum (energies), not an image",)
    with pytest.raises(MicroscopyError, match="holds a spectrum"):
        rosetta._signals([spectrum], Path("a.dm4"))
    with pytest.raises(MicroscopyError, match="it is a 2 x 2 x 4 x 4 data cube"):
        rosetta._signals([found(np.ones((2, 2, 4, 4)), "nm", "nm", "1/nm", "1/nm")], Path("a.dm4"))


# What is no instrument file


def test_files_that_are_not_what_their_names_say(write: Write, tmp_path: Path) -> None:
    refusal(
        write("a.npy", b"\x93NUMPY"), "format", r"a\.npy is no instrument file that is read here; known are"
    )
    refusal(write("a.pkl", b"\x80\x04."), "format", "no instrument file")
    refusal(write("a.dm3", b"\x89PNG\r\n\x1a\n"), "format", r"a\.dm3 is no digitalmicrograph file, whatever")
    refusal(write("a.tif", b"\x80\x04." * 20), "format", "is no tiff file")
    refusal(write("a.png", b""), "read", r"a\.png is empty; copy it again")
    refusal(tmp_path / "missing.tif", "read", r"missing\.tif cannot be opened: no such file")
    (tmp_path / "folder.tif").mkdir()
    refusal(tmp_path / "folder.tif", "read", "is not a file")
    os.mkfifo(tmp_path / "pipe.tif")
    refusal(tmp_path / "pipe.tif", "read", "is not a file")


def test_size_limits(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    # A page of 1 GiB in a few bytes: declared, never unfolded.
    monkeypatch.setattr(frame, "MAX_PIXELS", 1000)
    tiff = write("large.tif", tiff_bytes(np.zeros((50, 50), np.uint8), compression="zlib"))
    refusal(tiff, "size", r"large\.tif declares 50 x 50 pixels, more than .* bin or crop it first")
    refusal(
        write("large.png", picture_bytes(np.zeros((50, 50), np.uint8))), "size", "declares 50 x 50 pixels"
    )


def test_missing_extra(write: Write, monkeypatch: pytest.MonkeyPatch, sxm_bytes: Make) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any) -> Any:
        if name.split(".")[0] in ("rsciio", "h5py"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        MissingExtraError, match=r"^a\.dm3 needs rosettasciio; pip install 'atomvision-hub\[mic"
    ):
        read_images(write("a.dm3", b"\0\0\0\x03" + bytes(64)))
    with pytest.raises(MissingExtraError, match=r"a\.emd needs"):
        read_images(write("a.emd", b"\x89HDF\r\n\x1a\n" + bytes(64)))
    # These need nothing but the package itself.
    assert read_images(write("a.tif", tiff_bytes(RAMP)))
    assert read_images(write("a.png", picture_bytes(RAMP)))
    assert read_images(write("a.sxm", sxm_bytes(np.ones((3, 6, 8), np.float32))))


def test_select(write: Write, sxm_bytes: Make) -> None:
    path = write("scan.sxm", sxm_bytes(np.ones((3, 6, 8), np.float32)))
    assert [image.index for image in read_images(path, select="z BACKWARD")] == [1]
    with pytest.raises(
        MicroscopyError, match=r"no image named 'HAADF'; it has: LI Demod 1 X forward, Z back"
    ):
        read_images(path, select="HAADF")


def test_spectra_and_lines_are_no_images() -> None:
    for shape in ((512,), (1, 2048), (4, 4, 4, 4), ()):
        with pytest.raises(MicroscopyError, match="is no image but"):
            frame.check_pixels(np.zeros(shape), "it")


def test_plain_metadata() -> None:
    found = frame.plain(
        {
            "a": np.float32(0.5),
            2: [np.int16(3), b"\0" * 8],
            "long": np.zeros(1000),
            "nan": float("nan"),
            "t": (1, "x"),
        }
    )
    assert found == {"a": 0.5, "2": [3, "8 bytes"], "long": "1000 values", "nan": None, "t": [1, "x"]}
    deep: dict[str, Any] = {}
    for _ in range(100):
        deep = {"deeper": deep}
    assert "..." in str(frame.plain(deep))


# A file of our own


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_demo_file(tmp_path: Path, dtype: str) -> None:
    data = (RAMP / 150).astype(dtype)
    values = {"sample.formula": "MoS2", "acquisition.mode": "stem", "instrument.voltage": 80.0}
    path = write_demo_file(tmp_path / "scan.tif", data, (0.1, 0.123), values)
    image = read_images(path)[0]
    assert np.array_equal(image.data, data)
    assert image.data.dtype == dtype
    assert image.pixel_size == pytest.approx((0.1, 0.123), rel=1e-9)
    first = path.read_bytes()
    assert write_demo_file(path, data, (0.1, 0.123), values).read_bytes() == first
    with pytest.raises(
        UsageError, match=r"no metadata field 'sample\.formel'; see 'atomvision metadata template'"
    ):
        write_demo_file(path, data, (0.1, 0.1), {"sample.formel": "MoS2"})
    with pytest.raises(UsageError, match=r"the file is a TIFF; end its name with \.tif"):
        write_demo_file(tmp_path / "scan.png", data, (0.1, 0.1))
    with pytest.raises(
        UsageError, match=r"uint8, uint16 or float32 \[row, column\] are written, not int64\[12, 10\]"
    ):
        write_demo_file(path, RAMP.astype(np.int64), (0.1, 0.1))


def test_files_of_strangers_are_read_within_tighter_limits(write: Write) -> None:
    path = write("scan.png", picture_bytes(np.arange(400, dtype=np.uint8).reshape(20, 20)))
    with (
        size_limits(max_bytes=2**20, max_pixels=399),
        pytest.raises(MicroscopyError, match="declares 20 x 20"),
    ):
        read_images(path)
    with size_limits(max_bytes=60, max_pixels=400):
        refusal(path, "size", "the limit is 0")
    with size_limits(max_bytes=2**40, max_pixels=400):
        assert frame.allowed_size() == (frame.MAX_BYTES, 400)
    assert read_images(path)[0].data.shape == (20, 20)
