"""Common columns and cells of a study's tables, and its main figures in sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from ..findings import Cell, Chart, Column, Line, Section, Table
from ..intervals import Interval, points
from ..measure import Measured
from ..methods import Measures
from ..results import percent
from ..task import Mask, Side
from .config import StudyConfig
from .study import Study

GAIN = Column(key="gain", title="gain in top-1", kind="points")
TOP1 = Column(key="top1", title="top-1", kind="percent")
TOP5 = Column(key="top5", title="top-5", kind="percent")
KINDS = (
    Column(key="seen", title="top-1, seen", kind="percent"),
    Column(key="seen_gain", title="gain, seen", kind="points"),
    Column(key="unseen", title="top-1, unseen", kind="percent"),
    Column(key="unseen_gain", title="gain, unseen", kind="points"),
)
VARIANTS = {"frozen": "frozen CLIP", "image": "images refined", "text": "prompts refined", "both": "both refined"}
SIDES = Column(key="sides", title="what is moved")
_MOVED = {"image": "images", "text": "prompts", "both": "both", None: "class scores"}
_ALIKE = {
    "images": "images refined in both",
    "prompts": "prompts refined in both",
    "both": "images and prompts refined in both",
    "class scores": "scores of the same classes, ours of refined images and prompts",
}
_SPREAD = (
    Column(key="lowest", title="lowest model", kind="percent"),
    Column(key="highest", title="highest model", kind="percent"),
)


def spread(study: Study) -> tuple[Column, ...]:
    """Columns of the lowest and the highest model, if there are several."""
    return _SPREAD if len(study.subject.names) > 1 else ()


def columns(study: Study, first: str) -> tuple[Column, ...]:
    """Columns of names, accuracies and the gain over frozen; more for several models and unseen classes."""
    kinds = KINDS if study.test.unseen is not None else ()
    return (Column(key="name", title=first), TOP1, *spread(study), TOP5, GAIN, *kinds)


def row(study: Study, name: str, outcome: Measured, **more: Cell) -> dict[str, Cell]:
    """Cells of one outcome on the test task; without gains where it is frozen CLIP's."""
    cells = {"name": name} | accuracies(outcome) | more
    if len(study.subject.names) > 1 and len(outcome.ranks) > 1:
        cells |= extremes(outcome)
    unseen, gains = study.test.query_unseen, outcome is not study.frozen
    if gains:
        cells["gain"] = study.gain(outcome)
    for kind, mask in () if unseen is None else (("seen", ~unseen), ("unseen", unseen)):
        if mask.any():
            cells[kind] = float(outcome.top(1)[mask].mean())
            if gains:
                cells[f"{kind}_gain"] = part_gain(study, outcome, mask)
    return cells


def moved(method: Measures | None) -> str:
    """What a method moves, in words; none for frozen CLIP."""
    return "" if method is None else _MOVED[method.sides]


def accuracies(outcome: Measured) -> dict[str, Cell]:
    """Cells of one outcome alone."""
    return {"top1": float(outcome.top(1).mean()), "top5": float(outcome.top(5).mean())}


def extremes(outcome: Measured) -> dict[str, Cell]:
    """Top-1 of the worst and of the best model."""
    of_models = (outcome.ranks < 1).mean(axis=1).tolist()
    return {"lowest": min(of_models), "highest": max(of_models)}


def part_gain(study: Study, outcome: Measured, mask: Mask) -> Interval:
    """Gain over frozen on some queries of the test task, by mask (N,)."""
    return study.gain(outcome.only(mask), study.frozen.only(mask), study.test.only(mask))


def table(study: Study, title: str, rows: Sequence[dict[str, Cell]], first: str = "") -> Table:
    """A table of the test task; ``first`` is the title of the names."""
    return Table(title=title, columns=columns(study, first), rows=tuple(rows))


def gain_chart(
    title: str, x_title: str, x: Sequence[float] | Sequence[str], lines: Sequence[Line], *, x_log: bool = False
) -> Chart:
    """A chart of gains over frozen, the baseline at 0."""
    return Chart(
        title=title,
        x_title=x_title,
        y_title="gain in top-1, points",
        x=tuple(x),
        lines=tuple(lines),
        y_kind="points",
        x_log=x_log,
        baseline=0.0,
    )


def summary(sections: Sequence[Section], config: StudyConfig, sides: Side) -> tuple[str, ...]:
    """Sentences with the main figures of the sections, of ours with these sides refined."""
    by_key = {section.key: section for section in sections}
    tell: dict[str, Callable[[Section], Iterator[str]]] = {
        "main": partial(_main, sides=sides),
        "baselines": _baselines,
        "harm": _harm,
    }
    lines = [line for key, lines_of in tell.items() if key in by_key for line in lines_of(by_key[key])]
    if config.quick:
        lines.append("A short run; --full has more points on the curves, variants, cases and bootstrap draws.")
    return tuple(lines)


def _main(section: Section, sides: Side) -> Iterator[str]:
    table = section.tables[0]
    frozen, *others = table.rows
    ours = next(row for row in others if row["name"] == VARIANTS[sides])
    yield (
        f"Top-1 over {table.title}: {percent(_number(frozen['top1']))} % with frozen CLIP, "
        f"{percent(_number(ours['top1']))} % with {ours['name']}: {_points(ours['gain'])} points."
    )
    yield from section.notes


def _baselines(section: Section) -> Iterator[str]:
    chosen = str(section.tables[0].rows[0]["name"])
    for table in section.tables[1:]:
        row = next(row for row in table.rows if row["name"] == chosen)
        yield (
            f"Ours against the best baseline on development classes ({chosen}), {_ALIKE[str(row['sides'])]}, "
            f"{table.title}: {_points(row['ahead'])} points."
        )


def _harm(section: Section) -> Iterator[str]:
    ours = [row for row in section.tables[0].rows if row["name"] == "ours" and isinstance(row.get("gain"), Interval)]
    worst = min(ours, key=lambda row: _number(row["gain"]))
    what = _refined(worst)
    change = _points(worst["gain"])
    yield f"The worst memory for ours ({what}), “{worst['memory']}”, changes its top-1 by {change} points."
    noisy = [row for row in section.tables[1].rows if row["name"] == "ours" and 0.4 < _number(row["wrong"]) < 0.6]
    for row in noisy[:1]:
        share = percent(_number(row["wrong"]))
        yield f"With {share} % wrong captions, ours ({what}) changes top-1 by {_points(row['gain'])} points."


def _refined(row: dict[str, Cell]) -> str:
    return "images and prompts refined" if row["sides"] == "both" else f"{row['sides']} refined"


def _number(cell: Cell) -> float:
    if isinstance(cell, Interval):
        return cell.mean
    return float(cell) if isinstance(cell, int | float) else 0.0


def _points(cell: Cell) -> str:
    return points(cell) if isinstance(cell, Interval) else ""
