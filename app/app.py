"""AtomVision in the browser: `make app`, or a Hugging Face Space.

Every tab is a module in `tabs/`, a thin layer over `atomvision_hub`. Nothing leaves the machine: analytics
are off, fonts and scripts come from this server.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# Threads that wait in a loop for each other take the processor from the other users and from the browser; the
# matrices of NumPy are too small to share. Read when the libraries are loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).resolve().parent))

try:
    import gradio as gr
except ImportError:
    sys.exit("error: the app needs Gradio; pip install 'atomvision-hub[app]', or make app in a checkout")

from tabs import analyze, describe, explore, shared, simulate, super_resolve

TABS = {
    "Analyze": analyze,
    "Simulate": simulate,
    "Super-resolve and denoise": super_resolve,
    "Describe": describe,
    "Explore": explore,
}
_HERE = Path(__file__).resolve().parent
_NOTE = (
    "Files are read in memory and deleted; nothing is kept or sent elsewhere. Up to "
    f"{shared.MAX_MEGABYTES} MB and {shared.MAX_PIXELS // 10**6} megapixels."
)


def interface() -> gr.Blocks:
    """Return the page."""
    with gr.Blocks(title="AtomVision", analytics_enabled=False, delete_cache=(300, shared.LIFE)) as page:
        gr.HTML(f'<header class="av-header"><h1>AtomVision</h1><p>{_NOTE}</p></header>')
        for name, tab in TABS.items():
            with gr.Tab(name, elem_id=f"tab-{name.split()[0].lower()}"):
                tab.build(page)
        page.unload(shared.forget)
    return page


def theme() -> gr.Theme:
    """Return a theme whose fonts are those of the reader's system."""
    return gr.themes.Base(
        primary_hue="teal",
        neutral_hue="slate",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )


def main() -> None:
    """Serve the page; on a Space at all addresses, else on loopback alone."""
    shared.warm_up()
    page = interface()
    page.queue(default_concurrency_limit=2, max_size=64)
    page.launch(
        server_name="0.0.0.0" if "SPACE_ID" in os.environ else "127.0.0.1",  # noqa: S104
        server_port=int(os.environ.get("GRADIO_SERVER_PORT", "7860")),
        theme=theme(),
        css_paths=_HERE / "style.css",
        footer_links=[],
        max_file_size=f"{shared.MAX_MEGABYTES}mb",
        show_error=False,
        state_session_capacity=64,
        ssr_mode=False,
        quiet=True,
    )


if __name__ == "__main__":
    main()
