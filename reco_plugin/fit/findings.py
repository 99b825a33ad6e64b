"""Everything that a fit measured, as sections for ``reco_plugin.report``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..evaluate.findings import Cell, Chart, Column, Findings, Line, Section, Table
from ..evaluate.results import RECALL_AT
from .config import FitSide, TaskName
from .result import FitResult, TestLine

_TASKS: dict[TaskName, str] = {
    "text->image": "texts search images",
    "image->text": "images search texts",
    "image->name": "images classified by name",
}
_SIDES: dict[FitSide, str] = {"text": "texts", "image": "images", "names": "names"}


def findings_of(result: FitResult, out: Path) -> Findings:
    """The findings of a fit into the folder ``out``."""
    return Findings(
        name=result.config.source,
        command=result.config.command(out),
        setup={
            **result.counts,
            "pairs belong together by": result.config.group or "caption",
            "encoder": result.encoder,
            "chosen": result.chosen or "nothing",
            "refined by default": ", ".join(_SIDES[side] for side in result.refine) or "nothing",
            "seed": result.config.seed,
            "source digest": result.source_digest[:12],
            "versions": result.versions,
        },
        summary=(*result.words, *result.notes),
        sections=(_main(result.test), _validation(result)),
    )


def _main(lines: Sequence[TestLine]) -> Section:
    tasks = dict.fromkeys(line.task for line in lines)
    return Section(
        key="main",
        title="Does it help on the test part?",
        about=(
            "Groups of the test part were in no fitting and in no choice. About half of the pairs of each ask; the "
            "others are in the memory, without near-duplicates of the query. Only the query is refined; what it "
            "searches are the pairs that ask, plain. A result is right when it shows what the query shows. Measured "
            "once, with what was chosen on the validation part. Gains have 95 % intervals, bootstrapped over groups. "
            "The last column is the change of R@1 with a memory that holds nothing of the groups that are asked for."
        ),
        tables=tuple(_task_table(task, [line for line in lines if line.task == task]) for task in tasks),
        charts=tuple(_chart(task, [line for line in lines if line.task == task]) for task in tasks),
    )


def _task_table(task: TaskName, lines: Sequence[TestLine]) -> Table:
    rows: list[dict[str, Cell]] = []
    for line in lines:
        cells: dict[str, Cell] = {"name": line.label} | {f"r{k}": line.recall[k] for k in RECALL_AT}
        cells |= {"r1_gain": line.gain, "ahead": line.ahead, "loss": line.loss}
        rows.append({key: cell for key, cell in cells.items() if cell is not None})
    return Table(
        title=f"{_TASKS[task]}: {lines[0].queries:,} queries",
        columns=(
            Column(key="name", title=""),
            *(Column(key=f"r{k}", title=f"R@{k}", kind="percent") for k in RECALL_AT),
            Column(key="r1_gain", title="gain in R@1", kind="points"),
            Column(key="ahead", title="against baseline", kind="points"),
            Column(key="loss", title="without what is asked for", kind="points"),
        ),
        rows=tuple(rows),
        best=("r1",),
    )


def _chart(task: TaskName, lines: Sequence[TestLine]) -> Chart:
    return Chart(
        title=f"{_TASKS[task]}",
        x_title="results looked at",
        y_title="queries with a right one, %",
        x=tuple(f"R@{k}" for k in RECALL_AT),
        lines=tuple(Line(name=line.way, y=tuple(line.recall[k] for k in RECALL_AT)) for line in lines),
    )


def _validation(result: FitResult) -> Section:
    candidates, chosen = result.candidates, result.chosen
    sides = [side.side for side in candidates[0].sides]
    rows: list[dict[str, Cell]] = []
    for one in candidates:
        label = f"{one.name}, k={one.k}, gate {one.gate}"
        cells: dict[str, Cell] = {"name": f"{label} (chosen)" if label == chosen else label}
        for side in one.sides:
            cells |= {f"{side.side}_gain": side.gain, f"{side.side}_loss": side.loss}
            cells[f"{side.side}_helps"] = "refine" if side.helps else "plain"
        rows.append(cells)
    columns = [Column(key="name", title="candidate")]
    for name in sides:
        columns += [
            Column(key=f"{name}_gain", title=f"{_SIDES[name]}: gain in R@1", kind="points"),
            Column(key=f"{name}_loss", title=f"{_SIDES[name]}: worst loss", kind="points"),
            Column(key=f"{name}_helps", title=f"{_SIDES[name]}"),
        ]
    return Section(
        key="validation",
        title="What was chosen, on the validation part?",
        about=(
            "Every candidate on every side. A side is refined when the interval of its gain lies above zero and it "
            f"loses at most {100 * result.config.max_loss:g} points (or one query) with a memory that holds nothing of "
            "what is asked for; images also among names. Of the candidates, the one with the largest sum of gains on "
            "such sides is chosen."
        ),
        tables=(Table(title="", columns=tuple(columns), rows=tuple(rows)),),
    )
