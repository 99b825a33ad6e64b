"""``reco embed``: vectors of texts and images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ..config import load_settings
from ..data.source import read_lines
from ..errors import InputError
from ..files import whole_file
from ..options import RefineOptions
from .shared import Given, OpenOptions, check_place, claim_stdout, print_result, reco_to_read, take_flags, takes


@takes(RefineOptions, OpenOptions, but=("gate",))
def embed_command(
    *,
    text: Annotated[list[str] | None, typer.Option(help="A text; repeat it for more.")] = None,
    image: Annotated[list[Path] | None, typer.Option(help="An image file; repeat it for more.")] = None,
    input_file: Annotated[Path | None, typer.Option("--input", help="A file with one text per line.")] = None,
    refine: Annotated[
        bool | None,
        typer.Option(
            "--refine/--plain", help="Refined, or frozen CLIP without a memory.", show_default="the model's policy"
        ),
    ] = None,
    role: Annotated[str, typer.Option(help="query, or candidate: one of a set that competes.")] = "query",
    given: Given,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a (B, D) float32 .npy; images follow texts.")
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print one JSON object per line, and nothing else, on stdout.", callback=claim_stdout
        ),
    ] = False,
) -> None:
    """Embed texts and images, refined through the memory by default; one vector each, unit-norm."""
    import numpy as np

    texts = [*(text or []), *(read_lines(input_file) if input_file else [])]
    images = image or []
    if not texts and not images:
        raise InputError("nothing to embed: give --text, --image or --input")
    if role not in ("query", "candidate"):
        raise InputError(f"--role must be query or candidate, got {role!r}")
    check_place(out)
    place = take_flags(OpenOptions, given)
    none = refine is False  # then no memory is needed
    settings = load_settings(memory=":memory:") if none else place.existing
    with reco_to_read(place.model, settings) as reco:
        options: dict[str, Any] = {"role": role, "refine": refine, **given}
        parts = [reco.embed(texts, modality="text", **options)] if texts else []
        parts += [reco.embed(images, modality="image", **options)] if images else []
    asked = [part.retrieved for part in parts if part.retrieved is not None]
    if asked and not np.concatenate(asked).any():
        typer.echo("warning: the memory is empty, so nothing is refined and the vectors are plain", err=True)
    vectors = np.concatenate([part.vectors for part in parts])
    notes = [{"degraded": part.degraded} if part.degraded else {} for part in parts for _ in part.vectors]
    if out is not None:
        with whole_file(out) as part, part.open("wb") as file:
            np.save(file, vectors)
        result = {"file": str(out), "shape": vectors.shape, **notes[0], **notes[-1]}
        print_result(
            json.dumps(result) if as_json else f"wrote {vectors.shape[0]} x {vectors.shape[1]} float32 to {out}"
        )
        return
    for name, vector, note in zip([*texts, *map(str, images)], vectors, notes, strict=True):
        values = [round(float(value), 7) for value in vector]
        line = {"input": name, "embedding": values, **note}
        print_result(json.dumps(line, ensure_ascii=False) if as_json else f"{name}\t{values}")
