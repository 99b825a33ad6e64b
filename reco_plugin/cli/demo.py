"""``reco demo``: what a memory changes, on drawings that come with reco-plugin."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..config import load_settings
from ..errors import need
from .shared import ModelOption


def demo_command(
    *,
    model: ModelOption = None,
    out: Annotated[Path, typer.Option(help="Where index.html, results.json and the memory go.")] = Path("demo"),
) -> None:
    """Classify drawings of entities that CLIP never saw, before and after their pairs join the memory.

    Model and drawings come with reco-plugin: nothing is fetched.
    """
    for module in ("onnxruntime", "qdrant_edge", "jinja2"):
        need(module, "reco demo", "demo")
    from ..demo.run import run

    run(load_settings(model=model).model, out)
