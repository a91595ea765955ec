"""Figures of TeX sources, and archives that mean harm."""

from __future__ import annotations

import gzip
import io
import tarfile
import time
from pathlib import Path

import pytest

from atomvision_hub.literature import source as room
from atomvision_hub.literature.article import Figure
from atomvision_hub.literature.sites import ArticleError
from atomvision_hub.literature.source import Source, read_source, unpack
from atomvision_hub.literature.tex import plain

AT = "https://export.arxiv.org/e-print/1v1"


def document(body: str, **files: bytes) -> dict[str, bytes]:
    text = f"\\documentclass{{article}}\\begin{{document}}{body}\\end{{document}}"
    return {"main.tex": text.encode()} | {name.replace("__", "."): content for name, content in files.items()}


def figures(body: str, **files: bytes) -> tuple[Figure, ...]:
    return read_source(Source(document(body, **files)), AT)


def tar(files: dict[str, bytes], *extra: tarfile.TarInfo) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in extra:
            archive.addfile(info)
    return stream.getvalue()


def test_one_figure() -> None:
    body = r"""\begin{figure}[t]\centering\includegraphics[width=\textwidth]{stm.png}
        \caption[short]{\label{fig:a}STM of {\bf Cu}(111).}\end{figure}"""
    assert figures(body, stm__png=b"PNG") == (
        Figure("F1", "F1", "Figure 1", "", "STM of Cu(111).", "", f"{AT}#stm.png", b"PNG"),
    )


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (r"\begin{figure}\includegraphics{a}\end{figure}", "a.png"),
        (r"\begin{figure*}\includegraphics*[angle=90]{./a}\end{figure*}", "a.png"),
        (r"\begin{wrapfigure}{r}{5cm}\includegraphics{a}\end{wrapfigure}", "a.png"),
        (r"\begin{sidewaysfigure}\epsfig{file=b.eps,width=3cm}\end{sidewaysfigure}", "b.eps"),
        (r"\begin{figure}\psfig{figure=b.eps}\end{figure}", "b.eps"),
        (r"\begin{figure}\plotone{b.eps}\end{figure}", "b.eps"),
        (r"\graphicspath{{img/}{other/}}\begin{figure}\includegraphics{c}\end{figure}", "img/c.jpg"),
        (r"\begin{figure}\includegraphics{{c.d}.png}\end{figure}", "c.d.png"),
    ],
)
def test_names_of_files(body: str, path: str) -> None:
    files = {"a.png": b"1", "b.eps": b"2", "img/c.jpg": b"3", "c.d.png": b"4"}
    (figure,) = read_source(Source(document(body) | files), AT)
    assert figure.image_url == f"{AT}#{path}"
    assert figure.content == files[path]


def test_parts() -> None:
    macros = r"""\begin{figure}\subfigure[One]{\includegraphics{a}}
        \subfloat[Two]{\includegraphics{b}}\caption{Both}\end{figure}"""
    environments = r"""\begin{figure}
        \begin{subfigure}{.5\textwidth}\includegraphics{a}\caption{One}\end{subfigure}
        \begin{subfigure}[b]{.5\textwidth}\includegraphics{b}\caption{Two}\end{subfigure}
        \caption{Both}\end{figure}"""
    for body in (macros, environments):
        found = figures(body, a__png=b"", b__jpg=b"")
        assert [(f.name, f.figure, f.part, f.part_caption, f.caption) for f in found] == [
            ("F1.1", "F1", "a", "One", "Both"),
            ("F1.2", "F1", "b", "Two", "Both"),
        ]


def test_what_is_missing_is_said() -> None:
    drawn, lost = figures(
        r"\begin{figure}\begin{tikzpicture}\end{tikzpicture}\caption{A}\end{figure}"
        r"\begin{figure}\includegraphics{lost}\caption{B}\end{figure}"
    )
    assert (drawn.image_url, drawn.note) == (None, "drawn by TeX, there is no file")
    assert (lost.image_url, lost.note) == (None, "the source lacks the file 'lost'")


def test_comments_and_input() -> None:
    files = {
        "paper.tex": b"\\documentclass{a}%\\begin{figure}\\includegraphics{no}\\end{figure}\n\\input{sub/x}",
        "sub/x.tex": b"\\begin{figure}\\caption{50\\% of \\\\% gone\nit}\\end{figure}\\input{sub/x}",
        "a.png": b"",
        "supplement.tex": b"\\documentclass{a}",
    }
    (figure,) = read_source(Source(files), AT)
    assert figure.caption == "50% of it"


@pytest.mark.parametrize(
    ("tex", "text"),
    [
        (r"MoS$_2$ on \textbf{SiO}$_{2}$~\cite{a,b}.", "MoS$_2$ on SiO$_{2}$ ."),
        (r"Schr\"odinger, \'{E}lan, \~n, \^{\i}", "Schrödinger, Élan, ñ, î"),
        (r"10\,nm $\times$ 5\;\AA", "10 nm $\\times$ 5 Å"),
        (r"\(x^2\) 50\,\% \& \{a\} ``q'' 1--2", "$x^2$ 50 % & {a} “q” 1–2"),
        (r"\SI{-1.5}{V}, \qty[x]{20}{\nano\meter}, \ce{MoS2}", "-1.5 V, 20 nm, MoS2"),
        (r"{\it in situ} \emph{HAADF}-STEM \footnote{no}", "in situ HAADF-STEM"),
    ],
)
def test_tex_becomes_words(tex: str, text: str) -> None:
    assert plain(tex) == text


# --- archives ---


def test_all_forms_of_sources() -> None:
    files = document(r"\begin{figure}\caption{A}\end{figure}")
    main = files["main.tex"]
    for content in (tar(files), gzip.compress(tar(files)), main, gzip.compress(main, mtime=0)):
        assert unpack(content).files == files


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"%PDF-1.5", "neither a page nor a TeX source, only a PDF"),
        (gzip.compress(b"%PDF-1.5", mtime=0), "neither a page nor a TeX source, only a PDF"),
        (b"", "neither a tar archive nor TeX"),
        (b"<html>", "neither a tar archive nor TeX"),
        (b"\x1f\x8b\x08damaged", "is no proper gzip"),
        (gzip.compress(b"x" * 1000, mtime=0)[:-12], "is no proper gzip"),
        (tar({"a.tex": b"x" * 3000})[:1500], "is a damaged archive"),
    ],
)
def test_sources_that_cannot_be_used(content: bytes, reason: str) -> None:
    with pytest.raises(ArticleError, match=reason) as caught:
        unpack(content)
    assert caught.value.step == "source"


def test_no_document() -> None:
    with pytest.raises(ArticleError, match="the source has no TeX document"):
        read_source(unpack(tar({"a.tex": b"no class", "b.png": b""})), AT)


def test_archives_stay_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    links = []
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
        info = tarfile.TarInfo(f"extra{kind.decode()}")
        info.type, info.linkname = kind, "/etc/passwd"
        links.append(info)
    content = tar({"../up.png": b"1", "/abs.png": b"2", "a/../../b.png": b"3", "ok/c.png": b"4"}, *links)
    assert unpack(content).files == {"ok/c.png": b"4"}
    assert list(tmp_path.iterdir()) == []


def test_bombs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MOST_BYTES", 8 * 2**20)
    monkeypatch.setattr(room, "MOST_FILES", 100)
    piece = gzip.compress(bytes(2**20))
    with pytest.raises(ArticleError, match="the source is larger than 8 MiB"):
        unpack(piece * 1000)
    with pytest.raises(ArticleError, match="the source has more than 100 files"):
        unpack(tar({f"{n}.tex": b"" for n in range(101)}))
    sparse = tarfile.TarInfo("huge")
    sparse.size = 2**40
    header = sparse.tobuf(tarfile.GNU_FORMAT)
    with pytest.raises(ArticleError, match=r"larger than 8 MiB|damaged archive"):
        unpack(header + bytes(1024))


def test_tex_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MOST_TEX", 2**20)
    doubling = {f"f{n}.tex": f"\\input{{f{n + 1}}}\\input{{f{n + 1}}}".encode() * 100 for n in range(9)}
    with pytest.raises(ArticleError, match="the source inputs more than 1 MiB of TeX"):
        read_source(Source({"main.tex": b"\\documentclass{a}\\input{f0}"} | doubling), AT)
    loop = {"main.tex": b"\\documentclass{a}\\input{x}", "x.tex": b"\\input{y}", "y.tex": b"\\input{x}"}
    with pytest.raises(ArticleError, match="inputs more than"):
        read_source(Source(loop), AT)


@pytest.mark.parametrize(
    "body",
    [
        r"\begin{figure}" * 40_000,
        r"\begin{figure}\caption{" + "{" * 40_000,
        r"\begin{figure}" + r"\subfigure{" * 20_000,
        r"\begin{figure}\includegraphics" + "[" * 40_000,
        r"\begin{figure}\caption{" + "$" * 40_001 + r"}\end{figure}",
        r"\begin{figure}\caption{" + r"\cite[" * 20_000 + r"}\end{figure}",
        "\\" * 40_001 + "%",
        r"\graphicspath{" + "{a}" * 10_000,
        r"\input{" * 20_000,
    ],
)
def test_hostile_tex_is_read_in_linear_time(body: str) -> None:
    started = time.perf_counter()
    figures(body)
    assert time.perf_counter() - started < 5
