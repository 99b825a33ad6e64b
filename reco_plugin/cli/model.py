"""``reco model``: folders of models, got or added."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from ..api_encoder import write_api_model
from ..artifact import Artifact
from ..encoder_api import is_address
from ..errors import ConfigError, importing
from ..towers.options import AddOptions
from ..train.recipe import Serving
from .shared import Given, JsonOption, print_result, take_flags, takes

_OF_APIS = frozenset({"templates", "matryoshka"})


@takes(AddOptions, Serving)
def add_command(
    source: Annotated[
        str,
        typer.Argument(
            help="Folder or hub repository (org/name) with the files of optimum, transformers.js or transformers; or "
            "the address of an API that encodes.",
            show_default=False,
        ),
    ],
    *,
    given: Given,
    out: Annotated[Path, typer.Option(help="Model folder to write.")],
    as_json: JsonOption = False,
) -> None:
    """Make a model folder of ready ONNX towers (no torch needed), or of a transformers checkpoint.

    Pixels, padding and case are as the model's own files say. What is served is compared with what the maker's own
    model gives; if the self-test fails, nothing is written. Of an API, the folder holds what was measured, so that a
    service starts while the API is down (docs/api-encoders.md). Which encoder: docs/encoders.md
    """
    named = dict(given)
    serving, options = take_flags(Serving, given), AddOptions.of(**given)
    if is_address(source):
        if wrong := sorted(named.keys() - _OF_APIS):
            raise ConfigError(
                f"{_flag(wrong[0])} is not for the address of an API: only --template and --matryoshka are"
            )
        manifest = write_api_model(source, out, templates=options.templates, matryoshka=options.matryoshka)
        told = {"name": manifest.name, "api": manifest.api, "dimension": manifest.dimension}
        text = f"{manifest.fingerprint}\nwrote {out}; next: {shlex.join(['reco', 'doctor', '--model', str(out)])}"
        print_result(json.dumps(told, indent=2) if as_json else text)
        return
    with importing(None, "import", "importing towers"):
        from ..towers.add import add_model, remarks_on
        from ..towers.source import find_files
    files = find_files(source, options)
    if files.ready:
        parities = add_model(files, options, out, serving)
    else:
        with importing(None, "train", f"exporting {source}, a checkpoint of transformers"):
            from ..train.checkpoint import add_checkpoint
        parities = add_checkpoint(files, options, out, serving)
    manifest = Artifact.load(out).manifest
    remarks = list(remarks_on(manifest, options))
    if as_json:
        found = {"name": manifest.name, "what": files.layout, "dimension": manifest.dimension, "remarks": remarks}
        print_result(json.dumps(found | {"graphs": [vars(one) for one in parities]}, indent=2))
        return
    from ..train import parity

    typer.echo(f"{manifest.name}: {files.layout}, {manifest.dimension}-d")
    typer.echo("\n".join([*parity.table(parities), *remarks]))
    typer.echo(f"wrote {out}; next: {shlex.join(['reco', 'doctor', '--model', str(out)])}")


def _flag(name: str) -> str:
    return "--license" if name == "licenses" else f"--{name.replace('_', '-')}"
