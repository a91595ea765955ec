"""Articles of our own writing, in the markup and the formats that arXiv serves."""

from __future__ import annotations

import gzip
import io
import tarfile
from dataclasses import dataclass, field
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CC_BY = "http://creativecommons.org/licenses/by/4.0/"
CC_BY_NC_ND = "http://creativecommons.org/licenses/by-nc-nd/4.0/"
CC0 = "http://creativecommons.org/publicdomain/zero/1.0/"
ARXIV = "http://arxiv.org/licenses/nonexclusive-distrib/1.0/"

HAADF = (
    "(a) Atomic-resolution HAADF-STEM image of monolayer MoS<sub class='ltx_sub'>2</sub> and (b) its detail."
)
STM = (
    "STM topograph of NbSe<math alttext='{}_{2}' display='inline'><msub><mi></mi><mn>2</mn></msub></math> "
    "(10 nm x 10 nm, sample bias -0.1 V) taken at 4 K."
)
TEM = "Cross-sectional TEM image of the GaAs/AlAs superlattice."
PLOT = "Band structure of graphene along high-symmetry lines."
CREDITED = "TEM image of a gold nanoparticle. Reproduced with permission from Ref. [12]."


@dataclass
class Entry:
    """One article: what each service says about it; what is left out answers 404."""

    key: str
    title: str
    licence: str | None = None
    html: bytes | None = None
    ar5iv: bytes | None = None
    source: bytes | None = None
    oai: bytes | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    newest: str = ""

    @property
    def arxiv_id(self) -> str:
        return self.key.rsplit("v", 1)[0]

    def atom(self) -> str:
        return f"""<entry><id>http://arxiv.org/abs/{self.key}</id><title>{escape(self.title)}</title>
<published>2024-01-02T03:04:05Z</published><updated>2024-01-02T03:04:05Z</updated>
<summary>We study {escape(self.title)} by scanning tunneling microscopy and
  electron microscopy.</summary>
<author><name>Ada Author</name></author><author><name>Bo Bräuer</name></author>
<category term="cond-mat.mtrl-sci"/><category term="cond-mat.mes-hall"/>
<arxiv:doi>10.1000/{self.arxiv_id}</arxiv:doi></entry>"""

    def record(self) -> bytes:
        licence = f"<license>{escape(self.licence)}</license>" if self.licence else ""
        newest = self.newest or self.key[len(self.arxiv_id) :]
        versions = "".join(
            f'<version version="v{n + 1}"><date>x</date></version>' for n in range(int(newest[1:]))
        )
        return f"""<?xml version="1.0" encoding="UTF-8"?>
<OAI-PMH xmlns="http://www.openarchives.org/OAI/2.0/"><GetRecord><record>
<metadata><arXivRaw xmlns="http://arxiv.org/OAI/arXivRaw/"><id>{self.arxiv_id}</id>{versions}{licence}
</arXivRaw></metadata></record></GetRecord></OAI-PMH>""".encode()


def feed(entries: list[Entry], total: int, start: int) -> bytes:
    return f"""<?xml version='1.0' encoding='UTF-8'?>
<feed xmlns:opensearch="http://a9.com/-/spec/opensearch/1.1/" xmlns:arxiv="http://arxiv.org/schemas/atom"
 xmlns="http://www.w3.org/2005/Atom"><id>https://arxiv.org/api/x</id><title>arXiv Query</title>
<updated>2026-01-01T00:00:00Z</updated><opensearch:itemsPerPage>100</opensearch:itemsPerPage>
<opensearch:totalResults>{total}</opensearch:totalResults><opensearch:startIndex>{start}</opensearch:startIndex>
{"".join(entry.atom() for entry in entries)}</feed>""".encode()


def refusal(reason: str) -> bytes:
    return f"""<?xml version='1.0' encoding='UTF-8'?><feed xmlns="http://www.w3.org/2005/Atom"><entry>
<id>https://arxiv.org/api/errors#x</id><title>Error</title><summary>{escape(reason)}</summary></entry>
</feed>""".encode()


def figure(number: int, caption: str, *sources: str) -> str:
    images = "".join(
        f'<img src={quoteattr(source)} id="S1.F{number}.g{place}" class="ltx_graphics ltx_centering" '
        'width="300" height="200" alt="Refer to caption">'
        for place, source in enumerate(sources, start=1)
    )
    return (
        f'<figure id="S1.F{number}" class="ltx_figure">{images}<figcaption class="ltx_caption ltx_centering">'
        f'<span class="ltx_tag ltx_tag_figure">Figure {number}: </span>{caption}</figcaption></figure>'
    )


def page(*figures: str, licence: str = "", head: str = "") -> bytes:
    stated = f'<a id="license-tr" href="https://info.arxiv.org/help/license/">License: {licence}</a>'
    table = '<figure class="ltx_table" id="S1.T1"><figcaption>STM images, a table</figcaption></figure>'
    return f"""<!DOCTYPE html><html lang="en"><head><title>An article</title>{head}</head>
<body>{stated if licence else ""}<div class="ltx_page_main"><div class="ltx_page_content">
<article class="ltx_document"><p class="ltx_p">Text <span class="ltx_ERROR undefined">\\undefined</span></p>
{table}{"".join(figures)}</article></div></div></body></html>""".encode()


def lattice(shape: tuple[int, int] = (200, 200), period: float = 12.0, kind: str = "PNG") -> bytes:
    """A pattern of bright columns, as a file."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    waves = np.cos(2 * np.pi * x / period) * np.cos(2 * np.pi * y / period * 0.87)
    return _file(Image.fromarray((127 + 120 * waves).astype(np.uint8)), kind)


def compound() -> bytes:
    """Two panels with letters and a white gutter."""
    whole = Image.new("RGB", (430, 200), "white")
    for left, letter in ((0, "a"), (230, "b")):
        whole.paste(Image.open(io.BytesIO(lattice(period=9.0 + left / 40))).convert("RGB"), (left, 0))
        ImageDraw.Draw(whole).text((left + 6, 4), letter, fill="white")
    return _file(whole, "PNG")


def with_bar() -> bytes:
    """A micrograph with a bar of 100 pixels that says 5 nm."""
    image = Image.open(io.BytesIO(lattice((400, 400), period=22))).point(lambda grey: grey // 2)
    draw = ImageDraw.Draw(image)
    draw.rectangle((20, 370, 119, 375), fill=255)
    draw.text((45, 335), "5 nm", fill=255, font=ImageFont.load_default(26))
    return _file(image, "PNG")


def _file(image: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def tar(files: dict[str, bytes], *extra: tarfile.TarInfo, compressed: bool = True) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in extra:
            archive.addfile(info)
    return gzip.compress(stream.getvalue(), mtime=0) if compressed else stream.getvalue()


TEX = rb"""\documentclass{article}
\usepackage{graphicx}
\graphicspath{{figs/}}
% \begin{figure}\includegraphics{commented}\end{figure}
\begin{document}
\input{body}
\end{document}
"""
BODY = rb"""
\begin{figure}[t]\centering
\includegraphics[width=\textwidth]{stm}
\caption{\label{fig:stm}STM topograph of Si(111)-7$\times$7, 20\,nm wide, after Schr\"odinger~\cite{x}.}
\end{figure}
\begin{figure*}
\subfigure[Bright-field TEM image]{\includegraphics{a.pdf}}
\subfigure[Dark-field TEM image]{\includegraphics{b}}
\caption{TEM images of a \textbf{twin} in \AA{}ngstr\"om units.}
\end{figure*}
\begin{figure}\begin{tikzpicture}\draw (0,0);\end{tikzpicture}\caption{HRTEM image that is drawn}\end{figure}
"""


def source_files() -> dict[str, bytes]:
    return {
        "main.tex": TEX,
        "body.tex": BODY,
        "figs/stm.png": lattice(),
        "a.pdf": b"%PDF-1.4 ...",
        "b.eps": b"%!PS-Adobe-3.0 EPSF-3.0 ...",
    }
