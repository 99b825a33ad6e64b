"""All measurements of a fit, as sections for ``reco_plugin.report``, and the decision in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..evaluate.findings import Cell, Column, Findings, Section, Table
from ..evaluate.ranking import RECALL_AT
from ..evaluate.results import percent
from ..measure.statistics import points
from ..types import MODALITIES
from ..values import counted
from .catalogue import Catalogue, HeldOut
from .choose import TASK_OF, WORDS, Judged
from .config import SIDES, FitConfig, FitResult, FitSide, TaskName, TestLine

_TASKS: dict[TaskName, str] = {
    "text->image": "texts search images",
    "image->text": "images search texts",
    "image->name": "images classified by name",
    "text->text": "texts search other texts of the same thing",
    "image->image": "images search other images of the same thing",
}


def findings_of(result: FitResult, out: Path) -> Findings:
    """Make the findings of a fit in the folder ``out``."""
    return Findings(
        name=result.config.source,
        command=result.config.command("--out", out),
        setup={
            **result.counts,
            "pairs belong together by": result.config.group or "caption",
            "encoder": result.encoder,
            "chosen": result.chosen or "nothing",
            "refined by default": ", ".join(WORDS[side] for side in result.refine) or "nothing",
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
            "Groups of the test part are used neither to fit nor to choose. About half of the pairs of each are "
            "queries; the others are in the memory, without near-duplicates of the query. Only the query is refined, "
            "and the names where that helps; the index holds the query pairs, frozen, and where texts are searched "
            "the captions or names of all groups. A result is right when it is of the query's group. Measured once, "
            "with the choice of the validation part; the baseline moves what the choice moves. Gains have 95 % "
            "intervals, bootstrapped over groups. The last column is the change of R@1 with a memory that knows "
            "nothing of what is searched: without the groups of the queries, and those "
            "alone in the index. Texts among texts and images among images: other captions, or pictures, of the same "
            "thing are right, and queries move as far as the memory has learned for that (`target`); a table of these "
            "is missing where too few of the query pairs show the same as another."
        ),
        tables=tuple(_task_table(task, [line for line in lines if line.task == task]) for task in tasks),
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
            Column(key="loss", title="memory without answers", kind="points"),
        ),
        rows=tuple(rows),
        best=("r1",),
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
            Column(key=f"{name}_gain", title=f"{WORDS[name]}: gain in R@1", kind="points"),
            Column(key=f"{name}_loss", title=f"{WORDS[name]}: worst loss", kind="points"),
            Column(key=f"{name}_helps", title=f"{WORDS[name]}"),
        ]
    return Section(
        key="validation",
        title="What was chosen, on the validation part?",
        about=(
            "Every candidate on every side. A side is refined when the interval of its gain is above zero and it "
            f"loses at most {100 * result.config.max_loss:g} points (or one query, or what chance alone explains) with "
            "a memory that knows nothing of what is searched; images also among names. Of the candidates, the one with "
            "the largest sum of gains on such sides is chosen."
        ),
        tables=(Table(title="", columns=tuple(columns), rows=tuple(rows)),),
    )


_NAMES: dict[FitSide, str] = {"text": "Text queries", "image": "Image queries", "names": "Class names"}
_SHOWN = 3
_ENOUGH = 50
"""Pairs of the part ``fit`` in a group with others; with fewer there is little to learn."""


def words(
    judged: Sequence[Judged], chosen: Judged | None, lines: Sequence[TestLine], withdrawn: Sequence[FitSide]
) -> tuple[str, ...]:
    """One sentence on all, then one per side."""
    kept = [side for side in (chosen.sides if chosen else ()) if side not in withdrawn]
    names = " and ".join(_NAMES[side].lower() for side in kept)
    if kept and chosen:
        head = f"Refinement helps on this catalogue: {chosen.candidate.label}, for {names}."
    else:
        head = "No gain of refinement is certain on this catalogue: leave it off. The model refines nothing by default."
    sides = [side for side in SIDES if any(one.verdict(side) for one in judged)]
    return (head, *(_side(side, judged, chosen, lines, withdrawn) for side in sides))


def little_to_learn(catalogue: Catalogue, split: HeldOut) -> str | None:
    """A note where nearly every pair to fit on is a group of its own; None elsewhere."""
    counts = Counter(catalogue.groups[row] for row in split.rows("fit"))
    if (shared := sum(count for count in counts.values() if count > 1)) >= _ENOUGH:
        return None
    return (
        f"Only {shared} of {counts.total()} pairs to fit on show the same as another pair: nearly every title is "
        "unique. There is little to learn; the figures show harm, and whether similar titles help."
    )


def among_own(lines: Sequence[TestLine]) -> Iterator[str]:
    """What queries gain among their own modality, for which a client names the target; or that nothing can be said."""
    for modality in MODALITIES:
        line = next((one for one in lines if one.task == f"{modality}->{modality}" and one.gain), None)
        if line is None or line.gain is None:
            said = f"nothing can be said, since too few {modality}s of the test part's queries show the same as another"
        else:
            said = f"{points(line.gain)} points of recall at 1 (test, {line.label})"
        yield f"{modality.capitalize()}s that search {modality}s, with target={modality}: {said}."


def notes(catalogue: Catalogue, split: HeldOut, config: FitConfig) -> Iterator[str]:
    """Notes on the limits of the figures."""
    if config.group is None:
        yield "Pairs belong together when their captions are the same; name a column that says what they show: --group."
    if note := little_to_learn(catalogue, split):
        yield note
    if (used := catalogue.sample) is not None:
        yield (
            f"Fitted and measured on a sample of whole groups: {used.rows:,} of {used.of:,} rows (--max-pairs "
            f"{config.max_pairs}). In a memory of all of them a query has more and nearer neighbours, right ones and "
            "wrong ones: measure that with reco eval, or fit with --max-pairs 0."
        )
    if catalogue.rejected:
        kinds = "; ".join(f"{times:,} x {reason}" for reason, times in list(catalogue.reasons.items())[:_SHOWN])
        yield f"{counted(catalogue.rejected, 'row')} could not be used ({kinds}); rejected.jsonl lists them."


def _side(
    side: FitSide,
    judged: Sequence[Judged],
    chosen: Judged | None,
    lines: Sequence[TestLine],
    withdrawn: Sequence[FitSide],
) -> str:
    name = _NAMES[side]
    found = {line.way: line for line in lines if line.task == TASK_OF[side]}
    if chosen is None or side not in chosen.sides:
        return f"{name}: leave plain. {_why_not(side, judged, chosen)}"
    verdict, line = chosen.verdict(side), found["chosen"]
    assert verdict and line.gain and line.loss and line.ahead  # noqa: S101 - it was chosen, so it was measured
    before, after = (percent(found[way].recall[1]) for way in ("frozen", "chosen"))
    figures = (
        f"{before} % -> {after} % recall at 1 ({line.task}, test), {points(line.gain)} points; where the memory holds "
        f"no answer, {points(line.loss)}"
    )
    if side in withdrawn:
        return (
            f"{name}: leave plain. The gain on validation, {points(verdict.gain)} points, is not confirmed by the test "
            f"part: {figures}."
        )
    sentence = f"{name}: refine. {figures}. Against the best simple baseline ({found['baseline'].label}): "
    sentence += f"{points(line.ahead)}."
    return " ".join([sentence, *_ruled_out(side, judged, verdict.gain.mean)])


def _ruled_out(side: FitSide, judged: Sequence[Judged], gained: float) -> Iterator[str]:
    """Name the candidate with the largest gain, where it harms too much to be chosen."""
    found = [(verdict, one) for one in judged if (verdict := one.verdict(side)) and verdict.gains and verdict.harms]
    best, one = max(found, key=lambda row: row[0].gain.mean, default=(None, None))
    if best is not None and one is not None and best.gain.mean > gained:
        yield (
            f"Ruled out: {one.candidate.label}, which gains {points(best.gain)} on validation and loses "
            f"{-100 * best.loss:.1f} where the memory holds no answer."
        )


def _why_not(side: FitSide, judged: Sequence[Judged], chosen: Judged | None) -> str:
    """Say why a side is not refined, by the chosen candidate, else by the best one."""
    verdicts = [verdict for one in judged if (verdict := one.verdict(side))]
    own = chosen.verdict(side) if chosen else None
    best = own or max(verdicts, key=lambda verdict: (not verdict.harms, verdict.gain.mean))
    of = "The chosen fusion" if own else f"The best of {len(verdicts)} candidates"
    if not best.gains:
        return f"{of} changes recall at 1 by {points(best.gain)} points on validation, no certain gain."
    return (
        f"{of} gains {points(best.gain)} points on validation, but loses {-100 * best.loss:.1f} where the memory "
        "holds no answer."
    )
