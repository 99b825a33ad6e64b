"""``reco fit``: a model for a catalogue, and whether it helps."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config import load_settings
from ..data.source import parse_source
from ..fit.config import FitConfig
from ..ingest.source import is_memory
from .shared import Given, JsonOption, ModelOption, keeps, say, takes

if TYPE_CHECKING:
    from ..fit import FitResult


_COLUMNS = 100
_WAYS = {"frozen": "frozen CLIP", "baseline": "best baseline", "chosen": "chosen"}


@takes(FitConfig)
def fit_command(
    source: Annotated[
        str,
        typer.Argument(
            help="Catalogue: .csv/.tsv/.jsonl, folder, .tar, .npz, .parquet, or a memory, as for `memory build`.",
            show_default=False,
        ),
    ],
    *,
    out: Annotated[Path, typer.Option(help="Folder of the run: cache, report, model.", show_default=False)],
    model: ModelOption = None,
    given: Given,
    as_json: JsonOption = False,
) -> None:
    """Fit a model to your catalogue, measure on held-out groups whether it helps, and write the model.

    CLIP stays as it is, so memories and indexes stay valid. What is refined, with which fusion, k and caution, is
    chosen on a validation part and measured once on a test part; if nothing helps, the model refines nothing and the
    command says so. An interrupted run resumes when started again. What it means: docs/fit.md

    For an open_clip model, first: reco export --model ViT-B-32 --pretrained laion2b_s34b_b79k --out my_model
    """
    from ..fit import run_fit

    config = FitConfig.of(source=source, model=str(load_settings(model=model).model), **given)
    kept = keeps(f"what was encoded so far stays in {out}; the same command resumes from there")
    with kept, closing(_Bars()) as watch:
        result = run_fit(config, out, watch)
    say(result.to_dict(), render(result, out), as_json)


def render(result: FitResult, out: Path) -> str:
    """The figures of the test part, the decision, and what to do next."""
    from ..evaluate.results import percent, table
    from ..measure.statistics import points

    task = max((len(line.task) for line in result.test), default=0)
    header = ["test part", *(f"R@{k} %" for k in (1, 5, 10)), "gain in R@1, 95 % interval"]
    rows = [
        [
            f"{line.task if line.way == 'frozen' else '':<{task}}  {_WAYS[line.way]}",
            *(percent(share) for share in line.recall.values()),
            points(line.gain) if line.gain else "",
        ]
        for line in result.test
    ]
    sentences = [*_legend(result), "", *result.words, *result.notes]
    lines = [table(header, rows), "", *map(_wrap, sentences), ""]
    report = out / "report.html"
    if report.is_file():
        lines.append(f"report: {report}")
    if not result.refine:
        lines.append("next: nothing to build or serve anew: the model that you have, without refinement, is as good")
        return "\n".join(lines)
    return "\n".join([*lines, *_next(result.config.source, out / "model")])


def _wrap(sentence: str) -> str:
    return fill(sentence, _COLUMNS, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _legend(result: FitResult) -> Iterator[str]:
    """The best baseline, and the choice; per task if they differ."""
    for way, name in _WAYS.items():
        tasks = defaultdict[str, list[str]](list)
        for line in result.test:
            if line.way == way != "frozen":
                tasks[line.label].append(line.task)
        for label, of in tasks.items():
            yield f"{name}, {', '.join(of)}: {label}" if len(tasks) > 1 else f"{name}: {label}"


def _next(source: str, model: Path) -> Iterator[str]:
    """The next commands; a folder that is a memory already needs no building."""
    ready = Path(source).is_dir() and is_memory(parse_source(source))
    memory, prefix = source if ready else "./memory", "next: "
    if not ready:
        yield prefix + shlex.join(["reco", "memory", "build", source, "--model", str(model), "--memory", memory])
        prefix = " " * len(prefix)
    yield prefix + shlex.join(["reco", "serve", "--model", str(model), "--memory", memory])


class _Bars:
    """A bar while rows are encoded, then the name of each stage."""

    def __init__(self) -> None:
        from ..progress import progress_bar

        self._bar: Any = progress_bar(unit="row")

    def close(self) -> None:
        """Write the final state."""
        self._bar.close()

    def read(self, rows: int, rejected: int) -> None:
        """Advance the bar."""
        self._bar.set_postfix(rejected=rejected, refresh=False)
        self._bar.update(rows)

    def stage(self, what: str, rows: int | None = None) -> None:
        """Name the next stage."""
        self._bar.set_description_str(what, refresh=False)
        self._bar.reset(rows or 0)
