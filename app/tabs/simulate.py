"""Simulate: a crystal as STEM and STM show it, live, and as a row of the dataset."""

from __future__ import annotations

import dataclasses
from typing import Any

import ase
import gradio as gr
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from atomvision_hub import load_structures, simulate_stm
from atomvision_hub.data import arrow_schema, load_builder
from atomvision_hub.data.features import table_of
from atomvision_hub.errors import UsageError
from atomvision_hub.microscopy.view import to_view
from atomvision_hub.simulation.acquisition import Acquisition, Dose, Probe, SourceSize
from atomvision_hub.simulation.stm_library import stored_densities
from atomvision_hub.structures import check_crystal, flat_layer, material_columns
from atomvision_hub.structures.record import LATTICES
from tabs import figures
from tabs.shared import LIFE, guarded, say, session_folder, upload

#: A probe-corrected microscope for monolayers: with this source the columns are as wide as in `stem2d`.
_VOLTAGE, _SEMI_ANGLE, _SOURCE, _NARROW = 80.0, 25.0, 0.8, 0.1
#: Atoms of an uploaded cell, and seed of noise and vacancies: the same sliders show the same image.
_MOST_ATOMS, _SEED = 500, 0
#: Exponent of the dose from which on there is no noise.
_NO_NOISE = 6
_SHAPES = {"128 x 128": 128, "256 x 256": 256, "512 x 512": 512}
_OWN = "uploaded structure"


def build(page: gr.Blocks) -> None:
    """Lay out the tab."""
    own = gr.State(None, time_to_live=LIFE)
    rows = gr.State([], time_to_live=LIFE)
    crystals = load_structures("reference")
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            crystal = gr.Dropdown(
                list(crystals), value="MoS2", label="Reference crystal", elem_id="simulate-crystal"
            )
            file = gr.File(label="Or your own: CIF, POSCAR, XYZ", height=150, elem_id="simulate-file")
            size = gr.Slider(0.05, 0.4, value=0.1, step=0.01, label="Pixel size, Å per pixel")
            turn = gr.Slider(0, 180, value=15, step=1, label="Rotation, degrees", elem_id="simulate-rotation")
            dose = gr.Slider(
                1, 6, value=3.7, step=0.1, label="Dose, 10^x detected electrons per Å² (6: no noise)"
            )
            defocus = gr.Slider(-150, 150, value=0, step=5, label="Defocus, Å")
            vacancies = gr.Slider(0, 0.2, value=0, step=0.01, label="Vacancies, share of the atoms")
            with gr.Row():
                bias = gr.Radio([0.5, -0.5], value=0.5, label="STM: sample bias, V", min_width=140)
                mode = gr.Radio(
                    [("constant height", "constant_height"), ("constant current", "constant_current")],
                    value="constant_height",
                    label="STM mode",
                )
            shape = gr.Radio(list(_SHAPES), value="256 x 256", label="Pixels")
        with gr.Column(scale=3, min_width=300):
            status = gr.HTML(elem_id="simulate-status")
            with gr.Row():
                stem = gr.HTML(elem_id="simulate-stem", min_width=260)
                stm = gr.HTML(elem_id="simulate-stm", min_width=260)
            facts = gr.HTML(elem_id="simulate-facts")
            with gr.Row():
                save = gr.Button("Save as dataset row", variant="primary", elem_id="simulate-save")
                parquet = gr.DownloadButton(
                    "Download the rows (Parquet)", interactive=False, elem_id="simulate-parquet"
                )
    inputs = [crystal, own, size, turn, dose, defocus, vacancies, shape]

    @guarded(status, stem, stm, facts)
    def shown(name: str, mine: Any, *settings: Any) -> dict[Any, Any]:
        *of_stem, volts, way = settings
        scene = _Scene.of(_crystal(crystals, name, mine), *of_stem)
        frame = scene.view.frame(scene.config, _SEED)
        image, told = _stm(scene, volts, way)
        return {
            stem: _panel(
                frame.image, "gray", f"STEM of {scene.name}, {scene.config.pixel_size:g} Å per pixel"
            ),
            stm: _panel(image, "afmhot", f"STM of {scene.name}: {told}"),
            facts: _facts(scene, told),
        }

    @guarded(status)
    def saved(
        name: str,
        mine: Any,
        pixels: float,
        angle: float,
        electrons: float,
        focus: float,
        share: float,
        side: str,
        kept: list[Any],
        request: gr.Request,
    ) -> dict[Any, Any]:
        scene = _Scene.of(_crystal(crystals, name, mine), pixels, angle, electrons, focus, share, side)
        kept = [*kept, scene.row(len(kept))]
        path = session_folder(request) / "stem2d-rows.parquet"
        record = type(kept[0])
        # With the features of the dataset, so that `datasets` reads images and classes.
        pq.write_table(table_of(record, kept).cast(arrow_schema(record)), path)
        return {
            rows: kept,
            parquet: gr.DownloadButton(value=str(path), interactive=True),
            status: say(f"Rows kept: {len(kept)}. Each holds image, mask, atoms and vacancies.", "good"),
        }

    @guarded(status)
    def brought(path: str | None) -> dict[Any, Any]:
        if path is None:
            return {own: None, crystal: gr.Dropdown(list(crystals), value="MoS2")}
        atoms = _read(path)
        return {own: atoms, crystal: gr.Dropdown([_OWN, *crystals], value=_OWN)}

    changed: dict[str, Any] = {
        "fn": shown,
        "inputs": [*inputs, bias, mode],
        "outputs": [stem, stm, facts, status],
        "show_progress": "hidden",
        "trigger_mode": "always_last",
        "api_visibility": "private",
    }
    sliders = (crystal, size, turn, dose, defocus, vacancies, shape, bias, mode)
    gr.on([page.load, *(one.change for one in sliders)], **changed)
    file.change(
        brought, file, [own, crystal, status], api_visibility="private", show_progress="minimal"
    ).then(**changed)
    save.click(saved, [*inputs, rows], [rows, parquet, status], api_visibility="private")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Scene:
    """A crystal and how it is imaged, by the dataset's own script: what is shown is what is kept."""

    name: str
    layer: ase.Atoms
    config: Any
    view: Any

    @classmethod
    def of(
        cls,
        atoms: ase.Atoms,
        pixel_size: float,
        rotation: float,
        dose: float,
        defocus: float,
        vacancies: float,
        shape: str,
    ) -> _Scene:
        script: Any = load_builder("stem2d")
        steps: list[Any] = [
            Probe(voltage=_VOLTAGE, semi_angle=_SEMI_ANGLE, defocus=defocus),
            SourceSize(fwhm=_SOURCE),
        ]
        if dose < _NO_NOISE:
            steps.append(Dose(electrons=10**dose))
        config = script.StemConfig(
            description="Made in the browser",
            shape=(_SHAPES[shape], _SHAPES[shape]),
            pixel_size=pixel_size,
            sigma=_NARROW,
            acquisition=Acquisition(tuple(steps)).to_dict(),
            # Also for none, so that all rows of a session have the same columns.
            defects={"vacancies": (vacancies, vacancies)},
        )
        check_crystal(atoms)
        layer = flat_layer(atoms)
        name = str(atoms.info.get("material_id", "crystal"))
        view = next(script.views(layer, name, config, _SEED))
        return cls(name=name, layer=layer, config=config, view=dataclasses.replace(view, rotation=rotation))

    def row(self, number: int) -> Any:
        """Return the image as a row of stem2d."""
        script: Any = load_builder("stem2d")
        view = dataclasses.replace(self.view, name=f"{self.name}-{number}")
        # The image is that of the unnamed view: noise is drawn by the name.
        frame = self.view.frame(self.config, _SEED)
        return script.stem_row(view, frame, material_columns(self.layer), self.config, _SEED)


def _crystal(crystals: Any, name: str, own: ase.Atoms | None) -> ase.Atoms:
    if name == _OWN and own is not None:
        return own
    if name not in crystals:
        raise UsageError("choose a reference crystal, or drop a structure file")
    atoms: ase.Atoms = crystals[name]
    return atoms


def _read(path: str) -> ase.Atoms:
    """Return the first structure of an upload, whole and flat."""
    with upload(path) as found:
        structures = load_structures(found)
        atoms: ase.Atoms = structures[next(iter(structures))]
    if len(atoms) > _MOST_ATOMS:
        raise UsageError(f"the cell has {len(atoms)} atoms, more than {_MOST_ATOMS}; give the primitive cell")
    check_crystal(atoms)
    flat_layer(atoms)
    return atoms


def _stm(scene: _Scene, bias: float, mode: Any) -> tuple[npt.NDArray[np.float32], str]:
    """Return the image of the pristine layer, of a computed density where one is at hand, and what it is."""
    view = {
        "shape": scene.config.shape,
        "pixel_size": scene.config.pixel_size,
        "rotation": scene.view.rotation,
        "mode": mode,
    }
    stored = stored_densities(scene.layer, [bias])
    if stored:
        frame = simulate_stm(stored[0], **view)
        told = f"{bias:+g} V, density of states by {frame.engine}"
    else:
        frame = simulate_stm(scene.layer, surrogate=True, **view)
        told = "a surrogate of s orbitals without a bias: no density of states is at hand"
    if len(scene.view.made.defects):
        told += "; without the vacancies"
    return frame.image, told


def _panel(image: npt.NDArray[np.float32], colours: str, label: str) -> str:
    return figures.picture(to_view(image, clip=0).grey, label, colours)


def _facts(scene: _Scene, told: str) -> str:
    material = material_columns(scene.layer)
    made = scene.view.made
    rows = [
        ("Formula", str(material["formula"])),
        ("Lattice of the crystal", LATTICES[material["lattice"]].replace("_", " ")),
        ("Lattice that an image shows", LATTICES[material["lattice_projected"]].replace("_", " ")),
        ("Cell", f"{material['a']:.3f} x {material['b']:.3f} Å, {material['gamma']:.1f}°"),
        ("Vacancies", f"{len(made.defects):,} of {len(made.pristine):,} sites of the supercell"),
        ("Probe", f"{_VOLTAGE:g} kV, {_SEMI_ANGLE:g} mrad, source {_SOURCE:g} Å"),
        ("STM", told),
    ]
    return figures.table(rows, "What is shown")
