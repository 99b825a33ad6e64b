"""``reco model``: model folders from open_clip, from ready towers or an API, and the paper's layer."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from ..api_encoder import write_api_model
from ..artifact import Artifact
from ..encoder_api import is_address
from ..errors import ConfigError, importing
from ..towers.options import AddOptions
from ..train.recipe import ExportOptions, Recipe, Serving
from .shared import Given, JsonOption, keeps, say, take_flags, takes

_OF_APIS = frozenset({"templates", "matryoshka"})
_TORCH = partial(importing, None, "train", "training and export")
_OutOption = Annotated[Path, typer.Option(metavar="FOLDER", help="Write the model to this folder.")]


@takes(ExportOptions, Serving)
def export_command(*, given: Given, out: _OutOption, as_json: JsonOption = False) -> None:
    """Export an open_clip model to a model folder: ONNX graphs, tokenizer, manifest, Triton configuration.

    Every graph is first compared with torch, on images and texts: least cosine and top-10 overlap. If one differs by
    more than its precision allows, nothing is written.
    """
    serving, options = take_flags(Serving, given), ExportOptions.of(**given)
    with _TORCH():
        from ..train import parity
        from ..train.export import export_model

        parities = export_model(options, out, serving)
    found = [vars(one) for one in parities]
    say(found, "\n".join([*parity.table(parities), _wrote(out)]), as_json)


@takes(AddOptions, Serving)
def add_command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A folder or hub repository (org/name) with the files of optimum, transformers.js or transformers, or "
            "the address of an API that encodes.",
        ),
    ],
    *,
    given: Given,
    out: _OutOption,
    as_json: JsonOption = False,
) -> None:
    """Make a model folder of ready ONNX towers (no torch needed), of a transformers checkpoint, or of an API.

    What is served is compared with what the maker's own model gives; if the self-test fails, nothing is written. For
    an API, the folder holds what was measured, so that a service starts while the API is down. More: docs/encoders.md
    """
    if is_address(source):
        _add_api(source, given, out, as_json=as_json)
        return
    serving, options = take_flags(Serving, given), AddOptions.of(**given)
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
    from ..train import parity

    manifest = Artifact.load(out).manifest
    remarks = list(remarks_on(manifest, options))
    found = {"name": manifest.name, "what": files.layout, "dimension": manifest.dimension, "remarks": remarks}
    title = f"{manifest.name}: {files.layout}, {manifest.dimension}-d"
    text: Sequence[str] = [title, *parity.table(parities), *remarks, _wrote(out)]
    say(found | {"graphs": [vars(one) for one in parities]}, "\n".join(text), as_json)


def _add_api(source: str, given: Given, out: Path, *, as_json: bool) -> None:
    if wrong := sorted(given.keys() - _OF_APIS):
        flag = "--license" if wrong[0] == "licenses" else f"--{wrong[0].replace('_', '-')}"
        raise ConfigError(f"{flag} is not for the address of an API: only --template and --matryoshka are")
    options = AddOptions.of(**given)
    manifest = write_api_model(source, out, templates=options.templates, matryoshka=options.matryoshka)
    found: dict[str, Any] = {"name": manifest.name, "api": manifest.api, "dimension": manifest.dimension}
    say(found, f"{manifest.fingerprint}\n{_wrote(out)}", as_json)


@takes(Recipe, but=("collection",))
def train_command(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="The pairs to train on: a table, a folder, .tar, .npz or .parquet."),
    ],
    *,
    given: Given,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Write cache, TensorBoard log and layer to this folder.")],
) -> None:
    """Train the paper's layer on your pairs, around a frozen encoder, by the paper's loss.

    The closed form, which refines by default, needs no training. The encoder's vectors are cached in the run's folder.
    Each pair's own memory entry and near-duplicates of its image are hidden from its queries: otherwise the layer would
    learn to copy its caption.
    """
    with _TORCH():
        from ..train import run
    recipe = Recipe.of(source=source, **given)
    with keeps(f"encoded vectors stay in {out}"), _TORCH():
        run.train(recipe, out)
    weights = ["--pretrained", recipe.pretrained] if recipe.pretrained else []
    export = ["reco", "model", "export", "--model", recipe.model, *weights, "--fusion", str(out), "--out", "my_model"]
    typer.echo(
        f"wrote {out / 'fusion.pt'}; curves: {shlex.join(['tensorboard', '--logdir', str(out)])}\n"
        f"next: {shlex.join(export)}"
    )


def _wrote(out: Path) -> str:
    return f"wrote {out}; next: {shlex.join(['reco', 'doctor', '--model', str(out)])}"
