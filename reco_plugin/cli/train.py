"""Commands that fit, train and export models."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError, importing
from ..train.recipe import ExportOptions, Recipe, Serving
from .shared import (
    Given,
    JsonOption,
    MemoryFlags,
    OptionOption,
    keeps,
    print_result,
    take_flags,
    takes,
)

_TORCH = partial(importing, None, "train", "training and export")


@dataclass(frozen=True)
class _MemoryOption:
    """Kept in the recipe as part of the memory's address."""

    option: OptionOption = None


@takes(Recipe, _MemoryOption)
def train_command(
    source: Annotated[str, typer.Argument(help="Pairs to train on: .csv/.tsv/.jsonl, folder, .tar, .npz or .parquet.")],
    *,
    given: Given,
    out: Annotated[Path, typer.Option(help="Folder of the run: cache, TensorBoard log, fusion.pt.")],
) -> None:
    """Train the paper's layer on your pairs, around a frozen encoder, by the paper's loss.

    The closed form, which refines by default, needs no training. The encoder's vectors are cached in the run's folder.
    Each pair's own memory entry and near-duplicates of its image are hidden from its queries: otherwise the fusion
    would learn to copy its caption.
    """
    with _TORCH():
        from ..train import run
    place = MemoryFlags(given.get("memory"), given.get("collection"), take_flags(_MemoryOption, given).option)
    if place.option and not place.memory:
        raise ConfigError("--option is of a memory: give it, too, as in --memory grpc://localhost:6334")
    given["collection"] = _collection(place)
    given["memory"] = MemoryFlags(place.memory, None, place.option).address
    recipe = Recipe.of(source=source, **given)
    with keeps(f"encoded vectors stay in {out}"), _TORCH():
        run.train(recipe, out)
    weights = ["--pretrained", recipe.pretrained] if recipe.pretrained else []
    export = ["reco", "export", "--model", recipe.model, *weights, "--fusion", str(out), "--out", "my_model"]
    typer.echo(
        f"wrote {out / 'fusion.pt'}; curves: {shlex.join(['tensorboard', '--logdir', str(out)])}\n"
        f"next: {shlex.join(export)}"
    )


def _collection(place: MemoryFlags) -> str | None:
    """The collection to retrieve from, for the recipe; None if the memory has none."""
    served = place.memory is not None and "://" in place.memory
    if place.collection is not None and not served:
        raise ConfigError("--collection is of a Qdrant server: give its URL, --memory grpc://localhost:6334")
    return place.settings.memory_collection if served else None


@takes(ExportOptions, Serving)
def export_command(
    *,
    given: Given,
    out: Annotated[Path, typer.Option(help="Model folder to write.")],
    as_json: JsonOption = False,
) -> None:
    """Write a model folder: ONNX graphs, tokenizer, manifest, Triton configuration.

    Every graph is first compared with torch, on images and texts: least cosine and top-10 overlap. If one differs by
    more than its precision allows, nothing is written.
    """
    serving, options = take_flags(Serving, given), ExportOptions.of(**given)
    with _TORCH():
        from ..train import parity
        from ..train.export import export_model

        parities = export_model(options, out, serving)
    if as_json:
        print_result(json.dumps([vars(found) for found in parities], indent=2))
        return
    typer.echo("\n".join(parity.table(parities)))
    typer.echo(f"wrote {out}; next: {shlex.join(['reco', 'doctor', '--model', str(out)])}")
