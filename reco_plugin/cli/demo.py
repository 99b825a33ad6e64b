"""``reco demo``: show what a memory changes, on drawings that come with reco-plugin."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import need
from ..settings import load_settings


def demo_command(
    *,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Write the page, the figures and the memory to this folder.")
    ] = Path("demo"),
) -> None:
    """Classify drawings of things that CLIP never saw, before and after their pairs join the memory.

    Model and drawings come with reco-plugin: nothing is fetched.
    """
    for module in ("onnxruntime", "qdrant_edge", "jinja2", "scipy"):
        need(module, "reco demo", "demo")
    from ..demo.run import run

    run(Path(load_settings().model), out)
