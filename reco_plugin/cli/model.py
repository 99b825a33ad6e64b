"""``reco model``: folders of models, got or added."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..api_encoder import write_api_model
from ..encoder_api import is_address
from ..errors import importing
from ..towers.options import AddOptions
from ..train.recipe import Serving
from .shared import Given, JsonOption, print_result, reports_errors, take_flags, takes


@reports_errors
@takes(AddOptions, Serving)
def add_command(
    source: Annotated[
        str | None,
        typer.Argument(
            help="Folder or hub repository (org/name) with ready ONNX towers; or the address of an API that encodes.",
            show_default=False,
        ),
    ] = None,
    *,
    given: Given,
    out: Annotated[Path, typer.Option(help="Model folder to write.")],
    as_json: JsonOption = False,
) -> None:
    """Make a model folder of ready ONNX towers: transformers.js, immich, optimum, or single files. Needs no torch.

    Of an API, it holds what was measured, so that a service starts while the API is down (docs/api-encoders.md).
    Pixels, padding and case are as the model's own files say. Both towers are run on samples and compared with what is
    served; if the self-test fails, nothing is written. Which encoder: docs/encoders.md
    """
    serving, options = take_flags(Serving, given), AddOptions.of(**given)
    if source is not None and is_address(source):
        manifest = write_api_model(source, out, templates=options.templates, matryoshka=options.matryoshka)
        told = {"name": manifest.name, "api": manifest.api, "dimension": manifest.dimension}
        text = f"{manifest.fingerprint}\nwrote {out}; next: reco doctor --model {out}"
        print_result(json.dumps(told, indent=2) if as_json else text)
        return
    with importing(None, "import", "importing towers"):
        from ..towers.add import add_model
    from ..train import parity

    added = add_model(source, options, out, serving)
    if as_json:
        found = {"name": added.manifest.name, "layout": added.layout, "dimension": added.manifest.dimension}
        graphs = [vars(one) for one in added.parities]
        print_result(json.dumps(found | {"remarks": added.remarks, "graphs": graphs}, indent=2))
        return
    typer.echo("\n".join([f"{added.manifest.name}: {added.layout}, {added.manifest.dimension}-d"]))
    typer.echo("\n".join([*parity.table(added.parities), *added.remarks]))
    typer.echo(f"wrote {out}; next: reco doctor --model {out}")
