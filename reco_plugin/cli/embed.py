"""``reco embed``: print or save the vectors of texts and images."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..errors import InputError
from ..files import whole_file
from ..options import RefineOptions
from ..settings import load_settings
from ..sources.location import read_lines
from .shared import Given, JsonOption, OpenOptions, explained_lock, print_result, take_flags, takes


@dataclass(frozen=True)
class _Items(OpenOptions):
    """Items to embed, and how."""

    text: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="Embed this text; repeat the flag for more.")
    ] = None
    image: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Embed this image; repeat the flag for more.")
    ] = None
    input: Annotated[Path | None, typer.Option(metavar="FILE", help="Embed each line of this text file.")] = None
    refine: Annotated[
        bool | None,
        typer.Option(
            "--refine/--plain",
            help="Refine through the memory, or give plain CLIP vectors, which need no memory.",
            show_default="the model's policy",
        ),
    ] = None
    role: Annotated[
        Literal["query", "candidate"],
        typer.Option(help="Say what the items are: queries, or candidates that compete for a query."),
    ] = "query"


@takes(_Items, RefineOptions, but=("gate", "coverage", "presence", "words", "fuser"))
def embed_command(
    *,
    given: Given,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a (B, D) float32 .npy file; images follow texts.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Embed texts and images, refined through the memory by default; one vector each, unit-norm.

    With --json, each vector is a line of JSON.
    """
    import numpy as np

    from ..reco import Reco, tell_fallback

    items = take_flags(_Items, given)
    texts = [*(items.text or []), *(read_lines(items.input) if items.input else [])]
    images = items.image or []
    if not texts and not images:
        raise InputError("nothing to embed: give --text, --image or --input")
    settings = load_settings(memory=":memory:", model=items.model) if items.refine is False else items.existing
    with explained_lock(settings), Reco.of(settings) as reco:
        options: dict[str, Any] = {"role": items.role, "refine": items.refine, **given}
        parts = [reco.embed(texts, modality="text", **options)] if texts else []
        parts += [reco.embed(images, modality="image", **options)] if images else []
    tell_fallback(reco.settings)  # last: an error is printed without it
    retrieved = [part.retrieved for part in parts if part.retrieved is not None]
    if retrieved and not np.concatenate(retrieved).any():
        typer.echo("warning: the memory is empty, so nothing is refined and the vectors are plain", err=True)
    elif plain := next((part.coverage.plain for part in parts if part.coverage and part.coverage.plain), None):
        typer.echo(f"warning: vectors are plain: {plain}", err=True)
    vectors = np.concatenate([part.vectors for part in parts])
    notes = [{"degraded": part.degraded} if part.degraded else {} for part in parts for _ in part.vectors]
    if out is not None:
        with whole_file(out) as part, part.open("wb") as file:
            np.save(file, vectors)
        result = {"file": str(out), "shape": vectors.shape, **notes[0], **notes[-1]}
        text = f"wrote {vectors.shape[0]} x {vectors.shape[1]} float32 to {out}"
        print_result(json.dumps(result) if as_json else text)
        return
    for name, vector, note in zip([*texts, *map(str, images)], vectors, notes, strict=True):
        values = [round(float(value), 7) for value in vector]
        line = {"input": name, "embedding": values, **note}
        print_result(json.dumps(line, ensure_ascii=False) if as_json else f"{name}\t{values}")
