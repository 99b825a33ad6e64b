"""``reco fit``: from a catalogue to a model, and whether it helps."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from textwrap import fill
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..defaults import BATCH, MAX_LOSS, PAIRS_IN_RAM, SAME_IMAGE, STEPS
from .errors import keeps, reports_errors
from .options import JsonOption, ModelOption

if TYPE_CHECKING:
    from ..fit import FitResult

_COLUMNS = 100
_WAYS = {"frozen": "frozen CLIP", "baseline": "best baseline", "chosen": "chosen"}


@reports_errors
def fit_command(
    source: Annotated[
        str,
        typer.Argument(
            help="Catalogue: .csv/.tsv/.jsonl, folder, .tar, .npz, .parquet, or a memory.", show_default=False
        ),
    ],
    *,
    out: Annotated[Path, typer.Option(help="Folder of the run: cache, report, model.", show_default=False)],
    model: ModelOption = None,
    group: Annotated[
        str | None,
        typer.Option(help="Payload column: pairs with the same value show the same thing.", show_default="the caption"),
    ] = None,
    fuser: Annotated[
        Literal["auto", "all", "training-free", "mean", "prototype", "reco", "paper"],
        typer.Option(help="What is tried. auto: all but paper, which takes minutes."),
    ] = "auto",
    goal: Annotated[
        Literal["search", "classify"],
        typer.Option(help="What matters more: text and image queries, or the names that images are classified among."),
    ] = "search",
    k: Annotated[
        int | None, typer.Option("--k", min=1, help="Neighbours per query.", show_default="tries 5, 10 and 20")
    ] = None,
    validation: Annotated[float, typer.Option(help="Share of the groups that the policy is chosen on.")] = 0.15,
    test: Annotated[float, typer.Option(help="Share of the groups that is measured once, at the end.")] = 0.15,
    max_loss: Annotated[
        float,
        typer.Option(min=0, max=1, help="Recall at 1 that a side may lose where the memory has nothing to tell."),
    ] = MAX_LOSS,
    near_duplicate: Annotated[
        float, typer.Option(min=0, max=1, help="Image cosine from which a pair is hidden from a query.")
    ] = SAME_IMAGE,
    max_error_rate: Annotated[
        float, typer.Option(min=0, max=1, help="Share of rows that may be rejected before the run stops.")
    ] = 0.05,
    max_pairs: Annotated[
        int, typer.Option(min=0, help="Of a larger catalogue, a sample of whole groups is used; 0: all of it.")
    ] = PAIRS_IN_RAM,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split, the paper's training and the intervals.")] = 0,
    steps: Annotated[int, typer.Option(min=0, help="paper: training steps.")] = STEPS,
    batch: Annotated[int, typer.Option(min=2, help="paper: pairs per step, of all processes together.")] = BATCH,
    precision: Annotated[
        Literal["fp32", "bf16"], typer.Option(help="paper: precision of its arithmetic; weights and loss are fp32.")
    ] = "fp32",
    device: Annotated[str, typer.Option(help="paper: torch device.")] = "cpu",
    processes: Annotated[
        int, typer.Option(min=1, help="paper: how many share each batch, on a GPU each with --device cuda.")
    ] = 1,
    as_json: JsonOption = False,
) -> None:
    """Fit a model to your catalogue, measure on held-out groups whether it helps, and write a model that does so.

    CLIP stays as it is, so memories and indexes stay valid. What is refined, with which fusion, k and gate, is chosen
    on a validation part and measured once on a test part; where nothing helps, the model refines nothing and the
    command says so. An interrupted run goes on when it is started again. What it means: docs/fit.md

    For an open_clip model, first: reco export --model ViT-B-32 --pretrained laion2b_s34b_b79k --out my_model
    """
    from ..config import load_settings
    from ..fit import begin, follow, run_fit
    from ..fit.config import checked_config
    from .stores import say

    config = checked_config(
        source=source,
        model=str(load_settings(model=model).model),
        group=group,
        fuser=fuser,
        goal=goal,
        k=k,
        validation=validation,
        test=test,
        max_loss=max_loss,
        near_duplicate=near_duplicate,
        max_error_rate=max_error_rate,
        max_pairs=max_pairs,
        seed=seed,
        steps=steps,
        batch=batch,
        precision=precision,
        device=device,
    )
    with keeps(f"what was encoded and trained so far stays in {out}; the same command goes on from there"):
        joined = begin(config, out, processes)
        if not joined.leads:
            follow(config, out, joined)
            return
        with _Bars() as watch:
            result = run_fit(config, out, watch, joined)
    say(result.to_dict(), told(result, out), as_json)


def told(result: FitResult, out: Path) -> str:
    """The figures of the test part, the decision, and what to do next."""
    from ..evaluate.table import gain, percent, table

    task = max((len(line.task) for line in result.test), default=0)
    header = ["test part", *(f"R@{k} %" for k in (1, 5, 10)), "gain in R@1, 95 % interval"]
    rows = [
        [
            f"{line.task if line.way == 'frozen' else '':<{task}}  {_WAYS[line.way]}",
            *(percent(share) for share in line.recall.values()),
            gain(line.gain) if line.gain else "",
        ]
        for line in result.test
    ]
    sentences = [*_legend(result), "", *result.words, *result.notes]
    lines = [table(header, rows), "", *map(_wrapped, sentences), ""]
    report = out / "report.html"
    if report.is_file():
        lines.append(f"report: {report}")
    return "\n".join([*lines, *_next(result.config.source, out / "model")])


def _wrapped(sentence: str) -> str:
    return fill(sentence, _COLUMNS, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _legend(result: FitResult) -> Iterator[str]:
    """What the best baseline is, and what was chosen; of each task where they differ."""
    for way, name in _WAYS.items():
        tasks = defaultdict[str, list[str]](list)
        for line in result.test:
            if line.way == way != "frozen":
                tasks[line.label].append(line.task)
        for label, of in tasks.items():
            yield f"{name}, {', '.join(of)}: {label}" if len(tasks) > 1 else f"{name}: {label}"


def _next(source: str, model: Path) -> Iterator[str]:
    """Commands that put the model to use; a folder that is a memory already needs no building."""
    from ..data.source import parse_source
    from ..ingest.source import is_memory

    ready = Path(source).is_dir() and is_memory(parse_source(source))
    memory, prefix = source if ready else "./memory", "next: "
    if not ready:
        yield prefix + shlex.join(["reco", "memory", "build", source, "--model", str(model), "--memory", memory])
        prefix = " " * len(prefix)
    yield prefix + shlex.join(["reco", "serve", "--model", str(model), "--memory", memory])


class _Bars:
    """A bar while rows are encoded, then a line that says what is being done."""

    def __enter__(self) -> _Bars:
        from ..progress import progress_bar

        self._bar: Any = progress_bar(unit="row")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def read(self, rows: int, rejected: int) -> None:
        """Advance the bar."""
        self._bar.set_postfix(rejected=rejected, refresh=False)
        self._bar.update(rows)

    def stage(self, what: str, rows: int | None = None) -> None:
        """Name what is done next."""
        self._bar.set_description_str(what, refresh=False)
        self._bar.reset(rows or 0)
