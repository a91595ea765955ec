"""Content that means harm, made here."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zlib
from pathlib import Path

from PIL import Image

from .pages import CC0, CC_BY, Entry, figure, lattice, page, source_files, tar

SECRET = Path("/etc/passwd")


def png(width: int, height: int, rows: int | None = None) -> bytes:
    """A grey PNG that says it is this large and whose data hold that many rows, all black."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = zlib.compress(bytes((width + 1) * (height if rows is None else rows)), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    """A small PNG with 80 MB of compressed text."""
    plain = lattice((40, 40))
    text = b"Comment\0\0" + zlib.compress(bytes(80 * 2**20), 9)
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text + struct.pack(">I", zlib.crc32(b"zTXt" + text))
    return plain[:33] + chunk + plain[33:]


def gzip_bomb(size: int = 400 * 2**20) -> bytes:
    """Gzip of zeros, as many joined pieces of 1 MiB."""
    return gzip.compress(bytes(2**20), mtime=0) * (size // 2**20)


def entity_bomb(element: str = "feed") -> bytes:
    names = [f"e{n}" for n in range(10)]
    entities = '<!ENTITY e0 "lol">' + "".join(
        f'<!ENTITY {names[n]} "{f"&{names[n - 1]};" * 10}">' for n in range(1, 10)
    )
    return (
        f'<?xml version="1.0"?><!DOCTYPE x [{entities}]><{element}><title>&e9;</title></{element}>'.encode()
    )


def outside_entity() -> bytes:
    return (
        f'<?xml version="1.0"?><!DOCTYPE feed [<!ENTITY x SYSTEM "file://{SECRET}">]>'
        '<feed xmlns="http://www.w3.org/2005/Atom"><title>&x;</title></feed>'
    ).encode()


def escaping_tar() -> bytes:
    files = source_files()
    files["../../escaped.png"] = lattice()
    files["/absolute.png"] = lattice()
    files["body.tex"] = (
        b"\\begin{figure}\\includegraphics{figs/stm}\\caption{STM image A}\\end{figure}\n"
        b"\\begin{figure}\\includegraphics{../../escaped}\\caption{STM image B}\\end{figure}\n"
        b"\\begin{figure}\\includegraphics{link.png}\\caption{STM image C}\\end{figure}\n"
    )
    link = tarfile.TarInfo("link.png")
    link.type, link.linkname = tarfile.SYMTYPE, str(SECRET)
    hard = tarfile.TarInfo("hard.png")
    hard.type, hard.linkname = tarfile.LNKTYPE, "../../etc/passwd"
    device = tarfile.TarInfo("null")
    device.type = tarfile.CHRTYPE
    return tar(files, link, hard, device)


def transparent() -> bytes:
    stream = io.BytesIO()
    Image.new("RGBA", (60, 40), (0, 0, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def entries() -> list[Entry]:
    images = [
        "100mp.png",
        "text_bomb.png",
        "cut.png",
        "lying.png",
        "page_instead.png",
        "nowhere.png",
        "endless.png",
        "gzip_bomb.png",
        "//elsewhere.invalid/x.png",
        "file:///etc/passwd",
        "http://169.254.169.254/latest",
        "data:image/png;base64,AAAA",
        "http://[broken",
        "drawing.svg",
        "drawing.pdf",
        "drawing.eps",
        "transparent.png",
    ]
    figures = [figure(n, "STM image of Cu(111).", source) for n, source in enumerate(images, start=1)]
    return [
        Entry(
            "2402.00001v1",
            "bad images",
            licence=CC0,
            html=page(*figures),
            files={
                "100mp.png": png(10_000, 10_000, rows=100),
                "text_bomb.png": text_bomb(),
                "cut.png": lattice()[:700],
                "lying.png": png(300, 300, rows=10),
                "page_instead.png": b"<html><body>Not found</body></html>",
                "drawing.svg": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>',
                "drawing.pdf": b"%PDF-1.5",
                "drawing.eps": b"\xc5\xd0\xd3\xc6 binary EPS",
                "transparent.png": transparent(),
            },
        ),
        Entry("2402.00002v1", "an escaping archive", licence=CC_BY, source=escaping_tar()),
        Entry("2402.00003v1", "a bomb for a source", licence=CC_BY, source=gzip_bomb()),
        Entry(
            "2402.00004v1",
            "a bomb for a licence",
            html=page(figure(1, "TEM image of Au.", "fine.png")),
            files={"fine.png": lattice()},
            oai=entity_bomb("OAI-PMH"),
        ),
        Entry("2402.00005v1", "a deep page", html=b"<html><body class=ltx_document>" + b"<div>" * 200_000),
        Entry(
            "2402.00006v1",
            "a page that leads elsewhere",
            licence=CC_BY,
            html=page(
                figure(1, "TEM image of Pt.", "x1.png"), head='<base href="https://elsewhere.invalid/">'
            ),
        ),
        Entry("2402.00007v1", "not an archive", licence=CC_BY, source=b"neither tar nor TeX"),
        Entry("2402.00008v1", "a cut archive", licence=CC_BY, source=tar(source_files())[:300]),
        Entry("2402.00009v1", "only a PDF", licence=CC_BY, source=b"%PDF-1.5 ..."),
    ]
