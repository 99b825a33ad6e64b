"""``reco eval``: measure refinement on your own pictures, and choose a policy."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ..encoders.remote import load_model
from ..errors import ConfigError, need
from ..options import RefineDefaults, RefineHow
from ..settings import load_settings
from .shared import AllowPrivateUrls, Given, JsonOption, OpenOptions, keeps, reco_of, say, take_flags, takes

if TYPE_CHECKING:
    from ..evaluation.labelled_set import LabelledSet, ReadOptions
    from ..evaluation.record import Record
    from ..reco import Reco


@dataclass(frozen=True)
class _Evaluated(OpenOptions):
    """Options of a measurement."""

    memory: Annotated[
        str | None,
        typer.Option(
            metavar="MEMORY",
            help="Refine the pictures by this memory: a folder, or the URL of a Qdrant server.",
            show_default="the source itself: one half of its labels is the memory of the other",
        ),
    ] = None
    group: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Read what a picture shows from this column.", show_default="the caption"),
    ] = None
    template: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PROMPT",
            help="Classify by this prompt, with {} for the name of a class; repeat the flag for more.",
            show_default="of the source, or of the model",
        ),
    ] = None
    tune: Annotated[
        bool, typer.Option("--tune", help="Choose k, coverage and sides by labels, test them, write a model folder.")
    ] = False
    max_loss: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="With --tune, let at most this share of the labels lose if the memory holds no answer.",
            show_default="0.05",
        ),
    ] = None
    seed: Annotated[int, typer.Option(min=0, help="Draw the queries and the intervals from this seed.")] = 0
    allow_private_urls: AllowPrivateUrls = False


@takes(_Evaluated, RefineHow, but=("target", "where"))
def eval_command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A folder of one folder per class; a table with labels or captions; any source of pairs, as for "
            "`reco memory build`.",
            show_default=False,
        ),
    ],
    *,
    out: Annotated[
        Path,
        typer.Option(metavar="FOLDER", help="Write the page, eval.json, the vectors and the model to this folder."),
    ] = Path("eval"),
    as_json: JsonOption = False,
    given: Given,
) -> None:
    """Measure what refinement changes on your pictures, by side and direction, and write the page.

    With --memory, the pictures are refined by that memory; without it, one half of the labels is the memory of the
    other. Pairs of the query's own picture are hidden. With --tune, which needs labels, a policy is chosen on one part
    and tested on another, and written as a model folder if it helps. An interrupted run continues when you start it
    again. More: docs/evaluation.md
    """
    flags = take_flags(_Evaluated, given)
    for module in ("jinja2", "scipy"):
        need(module, "reco eval", "measure")
    from ..evaluation.report import check_writable

    if flags.max_loss is not None and not flags.tune:
        raise ConfigError("--max-loss belongs to --tune: add it, or leave --max-loss out")
    if flags.tune and flags.memory is not None:
        raise ConfigError("--tune measures pairs that are their own memory: leave out --memory")
    check_writable(out)
    how = {**given, "seed": flags.seed, "command": shlex.join(["reco", *sys.argv[1:]])}
    with keeps(f"what was encoded so far stays in {out}; the same command goes on from there"):
        record = _measure(source, flags, how, out)
    from ..evaluation.report import write_record
    from ..evaluation.table import render

    page = write_record(record, out, "eval")
    say(record.to_dict(), f"{render(record)}\n\npage: {page}", as_json)


def _measure(source: str, flags: _Evaluated, how: Mapping[str, Any], out: Path) -> Record:
    from ..evaluation.evaluate import evaluate, evaluate_held_out, query_memory
    from ..evaluation.labelled_set import ReadOptions, needs_encoder
    from ..evaluation.tune import MAX_LOSS, tune_model
    from ..signals.confidence import cutoff_notes

    reading = ReadOptions(
        group=flags.group,
        templates=flags.template or (),
        folder=out,
        needs_labels=flags.tune,
        allow_private_urls=flags.allow_private_urls,
    )
    named = flags.model is not None or "model" in load_settings().model_fields_set
    if flags.memory is not None:
        with reco_of(flags.existing, on_memory_failure="fail") as reco:
            source_set = _read(source, reading, reco)
            if not len(reco.memory):
                raise ConfigError(f"the memory {flags.memory} is empty: fill it, or leave out --memory")
            if reco.memory.calibration is None:
                raise ConfigError(
                    f"the memory {flags.memory} has learned nothing about its pairs, so no query would move: run reco "
                    f"memory build --relearn --memory {flags.memory}, or add pairs"
                )
            record = evaluate(query_memory(source_set, reco.memory.store), reco, **how)
            return replace(record, notes=[*record.notes, *cutoff_notes(reco.memory.store.header.calibration)])
    if not needs_encoder(source) and not named and not flags.tune:
        return evaluate_held_out(_read(source, reading, None), **how)[1]
    with reco_of(load_settings(memory=":memory:", model=flags.model)) as reco:
        split, record = evaluate_held_out(_read(source, reading, reco), reco, **how)
        if not flags.tune:
            return record
        most = MAX_LOSS if flags.max_loss is None else flags.max_loss
        base = load_model(reco.settings.model)
        return tune_model(
            record,
            split,
            base,
            out,
            max_loss=most,
            seed=flags.seed,
            refine=cast(RefineDefaults, {**reco.defaults, **how}),
        )


def _read(source: str, reading: ReadOptions, reco: Reco | None) -> LabelledSet:
    from ..evaluation.labelled_set import read_labelled_set
    from ..progress import progress_bar

    with progress_bar(desc="read", unit="picture") as bar:
        reading = replace(reading, progress=bar.update)
        if reco is not None:
            reading = replace(reading, encoder=reco.encoder, fingerprint=reco.manifest.fingerprint)
        return read_labelled_set(source, reading)
