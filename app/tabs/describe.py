"""Describe: a form for what the file does not say, checked while one types, saved as YAML or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import gradio as gr
import yaml

from atomvision_hub.errors import UsageError
from atomvision_hub.inference.inputs import first_usable
from atomvision_hub.microscopy import FORMATS, metadata
from atomvision_hub.microscopy.metadata import FIELDS, Facts, Metadata, MetadataError
from atomvision_hub.microscopy.metadata.schema import SECTIONS, choices, extra
from tabs import figures
from tabs.shared import LIFE, file_stem, guarded, read_upload, say, upload

#: Fields that a person fills in, in the order of the schema; where pixels come from is the reader's to say.
_FIELDS = tuple(path for path in FIELDS if not path.startswith("provenance."))
#: Sections that are open at first.
_OPEN = ("sample",)
#: Of a description that belongs to no file yet.
_NAME = "image.yaml"
_SAVE = """(text, name) => {
  if (!text) { return; }
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], {type: "text/plain"}));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}"""


def build(page: gr.Blocks) -> None:
    """Lay out the tab."""
    base = gr.State(None, time_to_live=LIFE)
    # In the page itself, where the names of downloads are needed.
    yaml_name = gr.Textbox(_NAME, visible=False)
    json_name = gr.Textbox("image.json", visible=False)
    boxes: dict[str, Any] = {}
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            file = gr.File(
                label="Fill in from a micrograph, or open a YAML or JSON made here",
                file_types=[*sorted(FORMATS), ".yaml", ".yml", ".json"],
                height=150,
                elem_id="describe-file",
            )
            for section, model in SECTIONS.items():
                if section == "provenance":
                    continue
                title = f"{section.replace('_', ' ').capitalize()}: {Facts.model_fields[section].description}"
                with gr.Accordion(title, open=section in _OPEN), gr.Row():
                    for name in model.model_fields:
                        boxes[f"{section}.{name}"] = _box(f"{section}.{name}")
        with gr.Column(scale=2, min_width=300):
            status = gr.HTML(say("Nothing is filled in yet."), elem_id="describe-status")
            text = gr.Code(label="YAML, to save beside the image", language="yaml", elem_id="describe-yaml")
            as_json = gr.Textbox(visible=False)
            with gr.Row():
                save_yaml = gr.Button("Save YAML", variant="primary", elem_id="describe-save-yaml")
                save_json = gr.Button("Save JSON", elem_id="describe-save-json")
            notes = gr.HTML()
    fields = list(boxes.values())
    outputs = [status, text, as_json, notes]

    @guarded(status, text, as_json)
    def typed(told: Metadata | None, name: str, *values: Any) -> dict[Any, Any]:
        return checked(told, name, dict(zip(boxes, values, strict=True)))

    def checked(told: Metadata | None, name: str, values: Mapping[str, Any]) -> dict[Any, Any]:
        try:
            found, line = _metadata(told, name, values)
        except MetadataError as error:
            problems = [f"{one.field} {one.reason}" for one in error.problems]
            return {
                status: figures.notes(problems, f"{len(problems)} to mend")
                + say("What is above is not saved yet.", "error"),
                text: "",
                as_json: "",
            }
        return {
            status: say(line, "good" if found.values() else "note"),
            text: metadata.to_yaml(found),
            as_json: json.dumps(found.model_dump(mode="json"), indent=1, ensure_ascii=False),
            notes: figures.notes(found.notes),
        }

    @guarded(status, text, as_json)
    def opened(path: str | None) -> dict[Any, Any]:
        if path is None:
            blank = dict.fromkeys(boxes, "")
            return {base: None, **dict.fromkeys(fields, ""), **checked(None, _NAME, blank)}
        told, facts, stem = _open(path)
        values = {name: _shown(facts.get(name)) for name in boxes}
        return {
            base: told,
            yaml_name: f"{stem}.yaml",
            json_name: f"{stem}.json",
            **{boxes[name]: value for name, value in values.items()},
            **checked(told, f"{stem}.yaml", values),
        }

    file.change(
        opened,
        file,
        [base, yaml_name, json_name, *fields, *outputs],
        api_name="describe",
        show_progress="minimal",
    )
    gr.on(
        [box.change for box in fields],
        typed,
        [base, yaml_name, *fields],
        outputs,
        show_progress="hidden",
        trigger_mode="always_last",
        api_visibility="private",
    )
    save_yaml.click(None, [text, yaml_name], None, js=_SAVE)
    save_json.click(None, [as_json, json_name], None, js=_SAVE)


def _box(path: str) -> Any:
    """Return the component of a field, with its meaning, unit and example."""
    field, unit = FIELDS[path], extra(path).get("unit")
    label = path.split(".")[1].replace("_", " ") + (f", {unit}" if unit else "")
    if words := choices(path):
        return gr.Dropdown(
            ["", *words], value="", label=label, info=field.description, min_width=220, elem_id=_id(path)
        )
    example = (field.examples or [""])[0]
    return gr.Textbox(
        label=label,
        info=field.description,
        placeholder=f"for example {_shown(example)}",
        min_width=220,
        max_length=2000,
        elem_id=_id(path),
    )


def _id(path: str) -> str:
    return f"describe-{path.replace('.', '-')}"


def _shown(value: Any) -> str:
    """Return a value as one types it."""
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(_shown(one) for one in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _is_list(path: str) -> bool:
    """Tell whether a field holds several numbers."""
    return any(getattr(one, "__origin__", None) is tuple for one in _parts(FIELDS[path].annotation))


def _parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for one in get_args(annotation):
        yield from _parts(one)


def _is_text(path: str) -> bool:
    return any(one is str for one in _parts(FIELDS[path].annotation))


def _typed(path: str, text: str) -> Any:
    """Return what a person typed as YAML would read it; what is no number stays for the schema to refuse."""
    if _is_text(path) or choices(path):
        return text
    words = text.replace(",", " ").replace("[", " ").replace("]", " ").split() if _is_list(path) else [text]
    numbers = [_number(word) for word in words]
    return numbers if _is_list(path) else numbers[0]


def _number(word: str) -> Any:
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word


def _metadata(told: Metadata | None, name: str, values: Mapping[str, Any]) -> tuple[Metadata, str]:
    """Return what file and form say together, and how much that is.

    Only what differs from the file is the person's: it goes through the reader of YAML files, which knows
    what is wrong and how to mend it.
    """
    known = {} if told is None else told.values()
    sections: dict[str, dict[str, Any]] = {}
    for path, text in values.items():
        typed = str(text or "").strip()
        if typed and typed != _shown(known.get(path)):
            section, field = path.split(".")
            sections.setdefault(section, {})[field] = _typed(path, typed)
    base = told if told is not None else Metadata.of({}, {})
    with TemporaryDirectory() as folder:
        # The name comes from the browser.
        file = Path(folder) / f"{file_stem(name).removesuffix('.yaml')}.yaml"
        file.write_text(yaml.safe_dump(sections, allow_unicode=True), encoding="utf-8")
        found = metadata.complete(base, [file] if sections else [])
    count, own = len(found.values()), sum(len(section) for section in sections.values())
    line = f"Valid: {count} facts, {own} of them yours." if count else "Nothing is filled in yet."
    return found, line


def _open(path: str) -> tuple[Metadata | None, Facts, str]:
    """Return what a micrograph tells, or what a YAML or JSON says, and the name to save it under."""
    name = Path(path).name
    if Path(path).suffix.lower() in FORMATS:
        told = metadata.extract(first_usable(read_upload(path)))
        return told, told, file_stem(name)
    with upload(path) as found:
        stem = file_stem(found.stem)
        if found.suffix.lower() != ".json":
            return None, metadata.read_sidecar(found), stem
        if found.stat().st_size > 2**18:
            raise UsageError(f"{name} is too long for metadata; open a JSON that was saved here")
        try:
            saved = Metadata.model_validate_json(found.read_bytes())
        except ValueError as problem:
            raise UsageError(f"{name} is no metadata of this page: {_first(str(problem))}") from None
    return saved, saved, stem


def _first(text: str) -> str:
    lines: Sequence[str] = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[1:3] or lines)[:160]
