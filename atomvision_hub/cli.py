"""The command line: `atomvision`. Every command is a thin door to the library."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from atomvision_hub import __version__
from atomvision_hub.commands import (
    analyze,
    atoms_picture,
    cluster,
    completion,
    doctor,
    metadata,
    spacings,
    stm_picture,
    welcome,
)
from atomvision_hub.commands.shared import (
    DONE,
    DONE_WITH_REJECTS,
    JsonLinesOption,
    JsonOption,
    emit,
    exit_code,
    explain,
    note,
)
from atomvision_hub.errors import AtomVisionError, UsageError

if TYPE_CHECKING:
    from atomvision_hub.data.publish import PushReport

#: Headings of the list of commands.
_DATA, _MODELS, _IMAGES, _PICTURES, _HERE = "Datasets", "Models", "Images", "Pictures", "This installation"


class _Commands(typer.core.TyperGroup):
    """Turns errors of any command into one line on standard error and an exit code."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        try:
            return super().make_context(*arguments, **options)
        except Exception as error:
            self._leave(error)
            raise

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # The reader (head, less) has gone: no error of ours. Keeps the interpreter quiet at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(DONE) from None
        except (Exception, KeyboardInterrupt) as error:
            self._leave(error)
            raise

    def _leave(self, error: BaseException) -> None:
        """Print what the user can mend and leave; of a defect the trace is needed."""
        line = explain(error)
        if line is not None and not os.environ.get("ATOMVISION_DEBUG"):
            note(line[0])
            raise typer.Exit(line[1]) from None


app = typer.Typer(
    name="atomvision",
    cls=_Commands,
    help="""Datasets, simulators and models for atomic-resolution images.

    Without a command it tells where to begin. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but some
    inputs were rejected.
    """,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def say(text: str = "") -> None:
    """Print a line of result to standard output."""
    typer.echo(text)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"atomvision-hub {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(welcome.GUIDE, nl=False)


SourceOption = Annotated[
    list[str],
    typer.Option(
        "--source",
        "-s",
        autocompletion=completion.sources,
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
        "--config",
        "-c",
        autocompletion=completion.dataset_configs,
        help="Name of a config of the dataset or a YAML file; repeat for several.",
    ),
]


@app.command(no_args_is_help=True, rich_help_panel=_DATA)
def build(
    dataset: Annotated[
        str,
        typer.Argument(
            autocompletion=completion.datasets,
            help="Which dataset: stem2d, stm2d, arxiv_figures, experimental_tem.",
        ),
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
    as_json: JsonOption = False,
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
    if as_json:
        emit({"dataset": dataset, **dataclasses.asdict(report)})
        raise typer.Exit(DONE_WITH_REJECTS if report.rejected else DONE)
    for name, splits in report.rows.items():
        say(f"{name}: " + ", ".join(f"{split} {rows:,}" for split, rows in splits.items()) + " rows")
    if report.rejected:
        reasons = ", ".join(f"{step} {count:,}" for step, count in sorted(report.rejected.items()))
        say(f"rejected: {reasons} (see {report.folder / 'rejected.parquet'})")
    say(f"{report.folder} is ready: load_dataset({str(report.folder)!r}, {next(iter(report.rows))!r})")
    raise typer.Exit(DONE_WITH_REJECTS if report.rejected else DONE)


@app.command(no_args_is_help=True, rich_help_panel=_DATA)
def validate(
    folder: Annotated[Path, typer.Argument(help="Folder of a dataset.")], as_json: JsonOption = False
) -> None:
    """Check a dataset folder: schema, checksums, card, images, masks, splits.

    Example: atomvision validate build/stem2d
    """
    from atomvision_hub.data import validate_folder

    problems = validate_folder(folder)
    if as_json:
        emit({"folder": str(folder), "valid": not problems, "problems": problems})
    for problem in problems:
        note(f"problem: {problem}")
    if problems:
        raise AtomVisionError(f"{folder} has {len(problems)} problem(s)")
    if not as_json:
        say(f"{folder} is valid")


RepoOption = Annotated[str, typer.Option("--repo-id", help="Repository on the Hub: ORG/NAME.")]
TagOption = Annotated[
    str, typer.Option("--tag", help="Version to publish: vX.Y.Z. A published tag never moves.")
]
PrivateOption = Annotated[bool, typer.Option("--private", help="Make a new repository private.")]


@app.command(no_args_is_help=True, rich_help_panel=_DATA)
def push(
    folder: Annotated[Path, typer.Argument(help="Folder of a finished dataset.")],
    repo_id: RepoOption,
    tag: TagOption,
    private: PrivateOption = False,
    as_json: JsonOption = False,
) -> None:
    """Publish a dataset folder on the Hugging Face Hub and tag it.

    The token is taken from HF_TOKEN or from `hf auth login`.

    Example: atomvision push build/stem2d --repo-id ORG/stem2d --tag v1.0.0
    """
    from atomvision_hub.data.publish import exit_on_interrupt, push_dataset

    with exit_on_interrupt():
        report = push_dataset(folder, repo_id, tag=tag, private=private)
    _tell_push(report, as_json)


@app.command(no_args_is_help=True, rich_help_panel=_MODELS)
def push_model(
    folder: Annotated[Path, typer.Argument(help="Folder of a trained model.")],
    repo_id: RepoOption,
    tag: TagOption,
    private: PrivateOption = False,
    as_json: JsonOption = False,
) -> None:
    """Publish a model folder on the Hugging Face Hub and tag it.

    Example: atomvision push-model my_model --repo-id ORG/lattice-classifier --tag v1.0.0
    """
    from atomvision_hub.data.publish import exit_on_interrupt
    from atomvision_hub.data.publish import push_model as push_folder

    with exit_on_interrupt():
        report = push_folder(folder, repo_id, tag=tag, private=private)
    _tell_push(report, as_json)


def _tell_push(report: PushReport, as_json: bool) -> None:
    if as_json:
        emit(dataclasses.asdict(report))
    else:
        say(str(report))


@app.command(
    no_args_is_help=True,
    rich_help_panel=_MODELS,
    # What follows the task is for the script, --help included.
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
def train(
    task: Annotated[
        str,
        typer.Argument(
            autocompletion=completion.tasks, help=f"What to train: {', '.join(completion.tasks(''))}."
        ),
    ],
    options: Annotated[
        list[str] | None,
        typer.Argument(
            autocompletion=completion.training_options,
            help="Options of the script; atomvision train TASK --help lists them.",
        ),
    ] = None,
) -> None:
    """Train a model with `accelerate launch`; all options go to the training script.

    Example: atomvision train classifier --config classifier_small --set data.path=build/stem2d
    """
    from atomvision_hub.engine.launch import launch

    raise typer.Exit(launch(task, options or []))


@app.command(no_args_is_help=True, rich_help_panel=_IMAGES)
def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files: PNG, TIFF, JPEG.")],
    model: Annotated[
        str | None,
        typer.Option(help="Model folder or Hub id; without it the lattice network that ships here."),
    ] = None,
    pixel_size: Annotated[float | None, typer.Option(min=1e-6, help="Å/px, if known.")] = None,
    as_json: JsonLinesOption = False,
) -> None:
    """Tell the two-dimensional Bravais lattice in images; works offline.

    Exit code 3: some images were refused.

    Example: atomvision predict image.png --pixel-size 0.1
    """
    from atomvision_hub.inference import predict as run

    failed = 0
    for path in images:
        try:
            result = run(path, model=model, pixel_size=pixel_size)
        except UsageError:
            raise  # the same for all images
        except AtomVisionError as error:
            # The other images still get their answer.
            note(f"error: {error}")
            failed += 1
            continue
        if as_json:
            emit({"image": str(path), **result.to_dict()})
        else:
            ranked = sorted(result.probabilities.items(), key=lambda item: -item[1])
            others = ", ".join(f"{name} {value:.2f}" for name, value in ranked[1:])
            say(f"{path}: {result.label} {ranked[0][1]:.2f} ({others})")
            for warning in result.warnings:
                note(f"  note: {warning}")
    raise typer.Exit(exit_code(len(images) - failed, failed))


@app.command(rich_help_panel=_HERE)
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to put the results.")] = Path("demo-output"),
    tiny: Annotated[
        bool, typer.Option("--tiny", help="The same road in seconds, with a useless model.")
    ] = False,
) -> None:
    """Build a dataset, train a small classifier on it, evaluate, reload, predict: offline, in minutes.

    Example: atomvision demo --out demo-output
    """
    from atomvision_hub.demo import run_demo

    run_demo(out, tiny=tiny, say=say)


app.command(no_args_is_help=True, rich_help_panel=_IMAGES)(analyze.analyze)
app.command(no_args_is_help=True, rich_help_panel=_IMAGES)(spacings.spacings)
app.add_typer(metadata.app, name="metadata", rich_help_panel=_IMAGES)
app.command(no_args_is_help=True, rich_help_panel=_PICTURES)(cluster.cluster)
app.command(rich_help_panel=_PICTURES)(stm_picture.stm_picture)
app.command(rich_help_panel=_PICTURES)(atoms_picture.atoms_picture)
app.command(rich_help_panel=_HERE)(doctor.doctor)


def main() -> None:
    """Entry point of the console script."""
    app(prog_name="atomvision")


def run_builder_script(script: str) -> None:
    """Entry point of ``python dataset_builders/NAME.py``: the same as ``atomvision build NAME``."""
    app(["build", Path(script).stem, *sys.argv[1:]], prog_name="atomvision")


if __name__ == "__main__":
    main()
