"""``reco model export``, ``add`` and ``train``: make model folders, and train the paper's layer."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ..encoders.model_folder import Artifact
from ..errors import importing
from ..export.export_options import AddOptions, ExportOptions, Recipe, Serving
from .shared import Given, JsonOption, say, take_flags, takes

_TORCH = partial(importing, None, "train", "training and export")
_OutOption = Annotated[Path, typer.Option(metavar="FOLDER", help="Write the model to this folder.")]


@takes(ExportOptions, Serving)
def export_command(*, given: Given, out: _OutOption, as_json: JsonOption = False) -> None:
    """Export an open_clip model to a model folder: ONNX graphs, tokenizer, manifest, Triton configuration.

    Every graph is first compared with torch, on images and texts: least cosine and top-10 overlap. If one differs by
    more than its precision allows, nothing is written.
    """
    serving, options = take_flags(Serving, given), ExportOptions(**given)
    with _TORCH():
        from ..export.onnx_export import export_model
        from ..export.parity import table

        parities = export_model(options, out, serving)
    say([vars(one) for one in parities], "\n".join([*table(parities), _wrote(out)]), as_json)


@takes(AddOptions, Serving)
def add_command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A folder or hub repository (org/name) with the files of optimum or transformers.js.",
        ),
    ],
    *,
    given: Given,
    out: _OutOption,
    as_json: JsonOption = False,
) -> None:
    """Make a model folder of ready ONNX towers, as optimum and transformers.js write them. Needs no torch.

    What is served is compared with what the maker's own model gives; if the self-test fails, nothing is written.
    """
    serving, options = take_flags(Serving, given), AddOptions(**given)
    with importing(None, "import", "importing towers"):
        from ..export.parity import table
        from ..export.ready import add, remarks_on

    parities = add(source, options, out, serving)
    manifest = Artifact.load(out).manifest
    remarks, what = list(remarks_on(manifest, options)), manifest.made_with["layout"]
    result = {"name": manifest.name, "what": what, "dimension": manifest.dimension, "remarks": remarks}
    title = f"{manifest.name}: {what}, {manifest.dimension}-d"
    text: Sequence[str] = [title, *table(parities), *remarks, _wrote(out)]
    say(result | {"graphs": [vars(one) for one in parities]}, "\n".join(text), as_json)


@takes(Recipe)
def train_command(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="The pairs to train on: a table, a folder, .tar, .npz or .parquet."),
    ],
    *,
    given: Given,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Write the layer, its recipe and a TensorBoard log to this folder.")
    ],
) -> None:
    """Train the paper's layer on your pairs, around a frozen encoder, by the paper's loss.

    The closed form, which refines by default, needs no training. Each pair's own memory entry and near-duplicates of
    its image are hidden from its queries: otherwise the layer would learn to copy its caption.
    """
    recipe = Recipe(source=source, **given)
    with _TORCH():
        from ..export.train_layer import train

        train(recipe, out)
    weights = ["--pretrained", recipe.pretrained] if recipe.pretrained else []
    export = ["reco", "model", "export", "--model", recipe.model, *weights, "--fusion", str(out), "--out", "my_model"]
    typer.echo(
        f"wrote {out / 'fusion.pt'}; curves: {shlex.join(['tensorboard', '--logdir', str(out)])}\n"
        f"next: {shlex.join(export)}"
    )


def _wrote(out: Path) -> str:
    return f"wrote {out}; next: {shlex.join(['reco', 'doctor', '--model', str(out)])}"
