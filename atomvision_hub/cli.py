"""The command line: `atomvision`. Every command is a thin door to the library."""

from __future__ import annotations

import errno
import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from atomvision_hub import __version__
from atomvision_hub.commands import analyze, atoms_picture, cluster, doctor, metadata, spacings, stm_picture
from atomvision_hub.errors import AtomVisionError, UsageError

#: Exit codes of all commands.
DONE, FAILED, WRONG_USAGE, DONE_WITH_REJECTS = 0, 1, 2, 3


def explain(error: BaseException) -> tuple[str, int] | None:
    """Give the line to print and the exit code for an error that the user can mend, `None` for a defect."""
    if isinstance(error, AtomVisionError):
        return f"error: {error}", error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; finished work is kept, the same command goes on", FAILED
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        where = f" while writing {error.filename}" if error.filename else ""
        return f"error: no space left{where}; free some and run the same command again, it goes on", FAILED
    if isinstance(error, PermissionError | IsADirectoryError | NotADirectoryError | FileNotFoundError):
        return f"error: {error.strerror}: {error.filename}", FAILED
    return None


class _Commands(typer.core.TyperGroup):
    """Turns errors of any command into one line on standard error and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # The reader (head, less) has gone: no error of ours. Keeps the interpreter quiet at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(DONE) from None
        except (Exception, KeyboardInterrupt) as error:
            line = explain(error)
            if line is None or os.environ.get("ATOMVISION_DEBUG"):
                raise
            typer.echo(line[0], err=True)
            raise typer.Exit(line[1]) from None


app = typer.Typer(
    name="atomvision",
    cls=_Commands,
    help="""Datasets and models for atomic-resolution images.

    A first result, offline, in minutes:  atomvision demo --out demo-output

    A dataset of your own:  atomvision build stem2d --source my_crystals/ --out my_dataset
    """,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Task(StrEnum):
    """What can be trained."""

    classifier = "classifier"
    segmenter = "segmenter"
    alignn = "alignn"
    srgan = "srgan"
    autoencoder = "autoencoder"


def say(text: str = "") -> None:
    """Print a line of result to standard output."""
    typer.echo(text)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"atomvision-hub {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


SourceOption = Annotated[
    list[str],
    typer.Option(
        "--source",
        "-s",
        help="'reference' (embedded crystals), 'synthetic:N' (random ones), "
        "'jarvis:dft_2d|c2db|twod_matpd|alex_pbe_2d_all', or any file or folder of the dataset's kind "
        "(structures, volumes, instrument files). Repeat to join several; duplicates are dropped.",
    ),
]
_ARTICLES = "arxiv_figures"
QueryOption = Annotated[
    list[str],
    typer.Option("--query", help="arXiv search, such as 'abs:\"scanning tunneling\"' (source 'query:...')."),
]
IdsOption = Annotated[
    list[Path], typer.Option("--ids", help="File with one arXiv id a line (source 'ids:...').")
]
FeedOption = Annotated[
    list[Path], typer.Option("--feed", help="Saved answer of the arXiv search, Atom XML (source 'feed:...').")
]
OutOption = Annotated[
    Path, typer.Option("--out", "-o", help="Folder of the dataset; the Hub repository to the letter.")
]
ConfigOption = Annotated[
    list[str],
    typer.Option(
        "--config", "-c", help="Name of a config of the dataset or a YAML file; repeat for several."
    ),
]


@app.command(no_args_is_help=True)
def build(
    dataset: Annotated[
        str, typer.Argument(help="Which dataset: stem2d, stm2d, arxiv_figures, experimental_tem.")
    ],
    out: OutOption,
    source: SourceOption = [],  # noqa: B006 - typer copies it
    config: ConfigOption = ["default"],  # noqa: B006
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first N inputs.")] = None,
    num_proc: Annotated[
        int, typer.Option(min=1, help="Worker processes; the bytes do not depend on it.")
    ] = 1,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    tiny: Annotated[bool, typer.Option("--tiny", help="A few inputs and small images, in seconds.")] = False,
    resume: Annotated[bool, typer.Option(help="Go on with an interrupted build.")] = True,
    store_dir: Annotated[
        Path | None, typer.Option(help="Folder that holds the downloaded files of jarvis-tools.")
    ] = None,
    split_file: Annotated[
        Path | None, typer.Option(help="JSON file with a split to use instead of the hash of the group.")
    ] = None,
    cache_dir: Annotated[
        Path | None,
        typer.Option(help="Where downloads and computed volumes are kept; default ~/.cache/atomvision."),
    ] = None,
    dask: Annotated[
        str | None,
        typer.Option(help="Make the shards on a Dask cluster: tcp://host:port, or a YAML file of a queue."),
    ] = None,
    query: QueryOption = [],  # noqa: B006
    ids: IdsOption = [],  # noqa: B006
    feed: FeedOption = [],  # noqa: B006
    jarvis_arxiv: Annotated[
        bool, typer.Option("--jarvis-arxiv", help="The arXiv dump of jarvis-tools (source 'jarvis:arxiv').")
    ] = False,
) -> None:
    """Build a dataset: from crystals, from articles, or from instrument files.

    Exit code 3 means done, but some inputs were rejected: rejected.parquet says which and why.

    Example: atomvision build stem2d --source reference --out build/stem2d
    """
    from atomvision_hub.data.build import BuildOptions
    from atomvision_hub.data.builders import load_builder

    articles = [f"query:{text}" for text in query] + [f"ids:{path}" for path in ids]
    articles += [f"feed:{path}" for path in feed] + ["jarvis:arxiv"] * jarvis_arxiv
    if articles and dataset != _ARTICLES:
        raise UsageError(f"--query, --ids, --feed and --jarvis-arxiv are for {_ARTICLES}, not for {dataset}")
    if not source and not articles:
        raise UsageError(
            f"nothing to build {dataset} from; give --source (atomvision build --help lists them)"
        )
    builder = load_builder(dataset)
    report = builder.build(
        BuildOptions(
            dataset=dataset,
            sources=[*source, *articles],
            out=out,
            configs=list(config),
            limit=limit,
            num_proc=num_proc,
            seed=seed,
            tiny=tiny,
            resume=resume,
            store_dir=store_dir,
            split_file=split_file,
            cache_dir=cache_dir,
            dask=dask,
        )
    )
    for name, splits in report.rows.items():
        say(f"{name}: " + ", ".join(f"{split} {rows:,}" for split, rows in splits.items()) + " rows")
    if report.rejected:
        reasons = ", ".join(f"{step} {count:,}" for step, count in sorted(report.rejected.items()))
        say(f"rejected: {reasons} (see {report.folder / 'rejected.parquet'})")
    say(f"{report.folder} is ready: load_dataset({str(report.folder)!r}, {next(iter(report.rows))!r})")
    raise typer.Exit(DONE_WITH_REJECTS if report.rejected else DONE)


@app.command(no_args_is_help=True)
def validate(folder: Annotated[Path, typer.Argument(help="Folder of a dataset.")]) -> None:
    """Check a dataset folder: schema, checksums, card, images, masks, splits."""
    from atomvision_hub.data import validate_folder

    problems = validate_folder(folder)
    for problem in problems:
        typer.echo(f"problem: {problem}", err=True)
    if problems:
        raise AtomVisionError(f"{folder} has {len(problems)} problem(s)")
    say(f"{folder} is valid")


RepoOption = Annotated[str, typer.Option("--repo-id", help="Repository on the Hub: ORG/NAME.")]
TagOption = Annotated[
    str, typer.Option("--tag", help="Version to publish: vX.Y.Z. A published tag never moves.")
]
PrivateOption = Annotated[bool, typer.Option("--private", help="Make a new repository private.")]


@app.command(no_args_is_help=True)
def push(
    folder: Annotated[Path, typer.Argument(help="Folder of a finished dataset.")],
    repo_id: RepoOption,
    tag: TagOption,
    private: PrivateOption = False,
) -> None:
    """Publish a dataset folder on the Hugging Face Hub and tag it.

    The token is taken from HF_TOKEN or from `hf auth login`.
    """
    from atomvision_hub.data.publish import exit_on_interrupt, push_dataset

    with exit_on_interrupt():
        say(str(push_dataset(folder, repo_id, tag=tag, private=private)))


@app.command(no_args_is_help=True)
def push_model(
    folder: Annotated[Path, typer.Argument(help="Folder of a trained model.")],
    repo_id: RepoOption,
    tag: TagOption,
    private: PrivateOption = False,
) -> None:
    """Publish a model folder on the Hugging Face Hub and tag it."""
    from atomvision_hub.data.publish import exit_on_interrupt
    from atomvision_hub.data.publish import push_model as push_folder

    with exit_on_interrupt():
        say(str(push_folder(folder, repo_id, tag=tag, private=private)))


@app.command(
    no_args_is_help=True,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)
def train(
    context: typer.Context,
    task: Annotated[Task, typer.Argument(help="What to train.")],
) -> None:
    """Train a model with `accelerate launch`; all options go to the training script.

    Example: atomvision train classifier --config classifier_small --set data.path=build/stem2d
    """
    from atomvision_hub.engine.launch import launch

    raise typer.Exit(launch(task.value, context.args))


@app.command(no_args_is_help=True)
def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files: PNG, TIFF, JPEG.")],
    model: Annotated[
        str | None,
        typer.Option(help="Model folder or Hub id; without it the small classifier that ships here."),
    ] = None,
    pixel_size: Annotated[float | None, typer.Option(help="Pixel size in Å, if known.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per image.")] = False,
) -> None:
    """Tell the two-dimensional Bravais lattice in images; works offline."""
    from atomvision_hub.inference import predict as run

    failed = 0
    for path in images:
        try:
            result = run(path, model=model, pixel_size=pixel_size)
        except AtomVisionError as error:
            # The other images still get their answer.
            typer.echo(f"error: {error}", err=True)
            failed += 1
            continue
        if as_json:
            say(json.dumps({"image": str(path), **result.to_dict()}, ensure_ascii=False))
        else:
            ranked = sorted(result.probabilities.items(), key=lambda item: -item[1])
            others = ", ".join(f"{name} {value:.2f}" for name, value in ranked[1:])
            say(f"{path}: {result.label} {ranked[0][1]:.2f} ({others})")
            for warning in result.warnings:
                typer.echo(f"  note: {warning}", err=True)
    if failed:
        raise typer.Exit(FAILED)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to put the results.")] = Path("demo-output"),
    tiny: Annotated[
        bool, typer.Option("--tiny", help="The same road in seconds, with a useless model.")
    ] = False,
) -> None:
    """Build a dataset, train a small classifier on it, evaluate, reload, predict: offline, in minutes."""
    from atomvision_hub.demo import run_demo

    run_demo(out, tiny=tiny, say=say)


app.add_typer(metadata.app, name="metadata")
app.command(no_args_is_help=True)(analyze.analyze)
app.command(no_args_is_help=True)(spacings.spacings)
app.command(no_args_is_help=True)(stm_picture.stm_picture)
app.command(no_args_is_help=True)(atoms_picture.atoms_picture)
app.command(no_args_is_help=True)(cluster.cluster)
app.command()(doctor.doctor)


def main() -> None:
    """Entry point of the console script."""
    app(prog_name="atomvision")


def run_builder_script(script: str) -> None:
    """Entry point of ``python dataset_builders/NAME.py``: the same as ``atomvision build NAME``."""
    app(["build", Path(script).stem, *sys.argv[1:]], prog_name="atomvision")


if __name__ == "__main__":
    main()
