"""``reco model``: folders of models, got or added."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..api_encoder import write_api_model
from ..encoder_api import is_address
from ..errors import ConfigError, importing
from ..files import in_home
from ..towers.options import AddOptions
from ..train.recipe import ExportOptions, Serving
from .shared import Given, JsonOption, print_result, take_flags, takes

if TYPE_CHECKING:
    from ..artifact import Manifest
    from ..train.parity import Parity

_OPEN_CLIP = ("hf-hub:", "local-dir:")
_OF_FILES = {"image", "text", "tokenizer", "preprocess", "context_length", "pad_token", "lower"}
_OF_FILES |= {"image_output", "text_output", "name", "revision"}
_OF_APIS = frozenset({"templates", "matryoshka"})


@takes(AddOptions, Serving)
def add_command(
    source: Annotated[
        str | None,
        typer.Argument(
            help="Folder or hub repository (org/name) of ready ONNX towers or of a transformers checkpoint; a model of "
            "open_clip, as in ViT-B-32/laion2b_s34b_b79k; or the address of an API that encodes.",
            show_default=False,
        ),
    ] = None,
    *,
    given: Given,
    out: Annotated[Path, typer.Option(help="Model folder to write.")],
    as_json: JsonOption = False,
) -> None:
    """Make a model folder of ready ONNX towers (no torch needed), of a transformers checkpoint, or of open_clip's.

    Pixels, padding and case are as the model's own files say. What is served is compared with what the maker's own
    model gives; if the self-test fails, nothing is written. Of an API, the folder holds what was measured, so that a
    service starts while the API is down (docs/api-encoders.md). Which encoder: docs/encoders.md
    """
    named = dict(given)
    serving, options = take_flags(Serving, given), AddOptions.of(**given)
    if source is not None and is_address(source):
        if wrong := sorted(named.keys() - _OF_APIS):
            raise ConfigError(
                f"{_flag(wrong[0])} is not for the address of an API: only --template and --matryoshka are"
            )
        manifest = write_api_model(source, out, templates=options.templates, matryoshka=options.matryoshka)
        told = {"name": manifest.name, "api": manifest.api, "dimension": manifest.dimension}
        text = f"{manifest.fingerprint}\nwrote {out}; next: {shlex.join(['reco', 'doctor', '--model', str(out)])}"
        print_result(json.dumps(told, indent=2) if as_json else text)
        return
    manifest, what, remarks, parities = _add(source, options, out, serving, named)
    if as_json:
        found = {"name": manifest.name, "what": what, "dimension": manifest.dimension, "remarks": remarks}
        print_result(json.dumps(found | {"graphs": [vars(one) for one in parities]}, indent=2))
        return
    from ..train import parity

    typer.echo(f"{manifest.name}: {what}, {manifest.dimension}-d")
    typer.echo("\n".join([*parity.table(parities), *remarks]))
    typer.echo(f"wrote {out}; next: {shlex.join(['reco', 'doctor', '--model', str(out)])}")


def _flag(name: str) -> str:
    return "--license" if name == "licenses" else f"--{name.replace('_', '-')}"


_Result = tuple["Manifest", str, list[str], list["Parity"]]


def _add(source: str | None, options: AddOptions, out: Path, serving: Serving, named: Given) -> _Result:
    """The manifest, what the source is, what was decided without being told, and the comparison."""
    if source and (model := _open_clip_model(source)):
        if wrong := sorted(_OF_FILES & named.keys()):
            raise ConfigError(f"{_flag(wrong[0])} is not for a model of open_clip, which says it by itself")
        return _export(*model, options, out, serving)
    with importing(None, "import", "importing towers"):
        from ..towers.add import add_model, remarks_on
        from ..towers.source import find_checkpoint
    files = find_checkpoint(source, options) if source and not (options.image or options.text) else None
    if files is None:
        added = add_model(source, options, out, serving)
        return added.manifest, added.layout, list(added.remarks), added.parities
    with importing(None, "train", f"exporting {source}, a checkpoint of transformers"):
        from ..train.checkpoint import add_checkpoint
    made = add_checkpoint(files, options, out, serving)
    return made.manifest, "a checkpoint of transformers", list(remarks_on(made.manifest, options)), made.parities


def _open_clip_model(source: str) -> tuple[str, str | None] | None:
    """Name and weights of a model of open_clip; None if it is something else."""
    if source.startswith(_OPEN_CLIP):
        return source, None
    folder = in_home(source)
    if (folder / "open_clip_config.json").is_file() and not list(folder.glob("*.onnx")):
        return f"local-dir:{folder}", None
    if folder.exists() or source.count("/") > 1 or not _may_be_of_open_clip(source.partition("/")[0]):
        return None
    name, _, weights = source.partition("/")
    with importing(None, "train", f"exporting {source}, a model of open_clip"):
        from ..train.encoder import knows
    return (name, weights or None) if knows(name) else None


def _may_be_of_open_clip(name: str) -> bool:
    """Whether a name looks like those of open_clip, so that torch is worth loading to ask it."""
    return name.startswith(("ViT", "RN", "EVA", "PE-", "Mobile", "coca", "convnext", "xlm-", "roberta", "mt5", "nllb"))


def _export(model: str, weights: str | None, options: AddOptions, out: Path, serving: Serving) -> _Result:
    with importing(None, "train", "exporting a model of open_clip"):
        from ..train.export import export_model
    from ..artifact import Artifact

    chosen = ExportOptions.of(
        model=model,
        pretrained=weights,
        precision=options.precision,
        templates=options.templates,
        licenses=options.licenses,
        matryoshka=options.matryoshka,
    )
    parities = export_model(chosen, out, serving)
    return Artifact.load(out).manifest, "a model of open_clip", [], parities
