"""What else could be done with the same pairs: makes docs/measurements/alternatives.md.

    python -m benchmarks.alternatives         # some minutes on one thread; fine-tuning is read from finetune.json
    python -m benchmarks.alternatives --ours  # after a change of the gate, which no other method has: keeps their rows

The emoji set and its memories, as in results.md, under the shipped mini CLIP. Everything is chosen on the development
entities, anew for every memory. Fine-tuning, which no gate is part of, was measured once: benchmarks/finetune.py as of
commit 76a34da.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from reco_plugin.evaluate.alternatives import LabelledImages, kinds
from reco_plugin.evaluate.findings import Cell, Column, Table
from reco_plugin.evaluate.intervals import Interval, bootstrap
from reco_plugin.evaluate.measure import Measured, measure, refine_task
from reco_plugin.evaluate.methods import Measures, choose
from reco_plugin.evaluate.study.run import bars
from reco_plugin.evaluate.task import Side, Task, TaskItems
from reco_plugin.files import whole_file
from reco_plugin.fuse import Learned
from reco_plugin.quickstart.dataset import ALL_SPLITS, EntitySplit
from reco_plugin.report.markdown import markdown_table

from .research import parser_of, publish, subject_of
from .subject import Subject, Way, refiner

DOCS = Path("docs/measurements")
PAGE, FIGURES, FINE_TUNED = (DOCS / name for name in ("alternatives.md", "alternatives.json", "finetune.json"))
MEMORIES: dict[str, tuple[EntitySplit, ...]] = {
    "all pairs": ALL_SPLITS,
    "without the seen entities": ("fusion", "dev", "unseen"),
}
GROUPS = ("unseen", "seen", "all")
OURS = 3
"""Rows of a table before those of the alternatives."""


@dataclass(frozen=True)
class Ours:
    """Refine images and prompts in one way."""

    way: Way
    sides: ClassVar[Side] = "both"

    def measure(self, task: Task, memory: Learned) -> Measured:
        """See :class:`reco_plugin.evaluate.methods.Measures`."""
        return measure(task, [refine_task(refiner(self.way), task, self.way.sides)])


class Comparison:
    """Every method on one memory of the emoji set."""

    def __init__(self, subject: Subject, name: str) -> None:
        self.name, data, rows = name, subject.data, subject.rows(MEMORIES[name])
        start = time.process_time()
        self.memory = subject.memory(rows)
        self.minutes = (time.process_time() - start) / 60  # of learning its calibration
        self.pairs, shown = data.memory.take(rows), data.memory_entity[rows]
        self.shown = LabelledImages(self.pairs.ids, self.pairs.image, np.arange(len(rows)), shown)
        queries = TaskItems(data.queries.image, "image", data.truth)
        whole = Task(queries, TaskItems(data.prompts, "text", np.arange(len(data.prompts))), data.truth)
        self.tasks = {split: whole.among(np.array(data.splits) == split) for split in ("dev", "unseen", "seen")}
        self.tasks["all"] = whole.only(np.isin(subject.split_of_query, ["unseen", "seen"]))

    def table(self, kept: Sequence[dict[str, Cell]] | None = None) -> Table:
        """Frozen, ours, and every alternative, or the rows of those that are kept."""
        both = Way(self.memory)
        rows = [
            self._row("frozen", None),
            self._row("ours", Ours(both), "nothing", self.minutes),
            self._row("ours, images alone", Ours(replace(both, sides=("image",))), "nothing", self.minutes),
            *(self._alternatives() if kept is None else kept),
        ]
        outside = "" if "seen" in MEMORIES[self.name] else ", not in the memory"
        columns = (
            Column(key="name", title=""),
            Column(key="unseen", title="unseen, top-1", kind="percent"),
            Column(key="unseen_gain", title="gain in unseen", kind="points"),
            Column(key="seen", title=f"seen{outside}, top-1", kind="percent"),
            Column(key="seen_gain", title=f"gain in seen{outside}", kind="points"),
            Column(key="all", title="all labels, top-1", kind="percent"),
            Column(key="all_gain", title="gain in all labels", kind="points"),
            Column(key="needs", title="needs, beside the pairs"),
            Column(key="minutes", title="minutes", kind="number"),
        )
        title = f"Memory: {self.name}, {len(self.pairs):,} pairs"
        return Table(title=title, columns=columns, rows=tuple(rows))

    def _alternatives(self) -> Iterator[dict[str, Cell]]:
        """The best variant of every kind on the development entities, with the minutes of making and choosing it."""
        captions = [str(payload["caption"]) for payload in self.pairs.payloads]
        for name, kind in kinds(self.pairs, captions, self.shown, quick=False, seed=0).items():
            start = time.process_time()
            (chosen,) = choose(self.tasks["dev"], self.memory, {name: kind.variants}, bars)
            minutes = (time.process_time() - start) / 60
            yield self._row(f"{name} ({chosen.settings})", chosen.method, kind.needs, minutes)

    def _row(
        self, name: str, method: Measures | None, needs: str | None = None, minutes: float | None = None
    ) -> dict[str, Cell]:
        """Top-1 per group, and the gain over frozen with its interval over entities."""
        row: dict[str, Cell] = {"name": name, "needs": needs, "minutes": None if minutes is None else round(minutes, 2)}
        for group in GROUPS:
            task = self.tasks[group]
            before = measure(task).top(1)
            after = before if method is None else method.measure(task, self.memory).top(1)
            row[group] = float(after.mean())
            if method is not None:
                row[f"{group}_gain"] = bootstrap(after - before, task.groups)
        return row


def block(tables: Mapping[str, Table], tuned: Mapping[str, Any]) -> str:
    """A table a memory, with the rows of fine-tuning on its pairs."""
    whole = [table.model_copy(update={"rows": (*table.rows, *_tuned(tuned, name))}) for name, table in tables.items()]
    return "\n\n".join(map(markdown_table, whole))


def _tuned(stored: Mapping[str, Any], memory: str) -> Iterator[dict[str, Cell]]:
    """A row for each learning rate, the best on the development entities first."""
    for place, (rate, run) in enumerate(sorted(stored[memory].items(), key=lambda run: -run[1]["dev"]["top1"])):
        row: dict[str, Cell] = {
            "name": f"fine-tuning, rate {rate}" + ("" if place else ", the best on dev"),
            "needs": "training with the images, the index made anew",
            "minutes": stored["minutes"],
        }
        for group in set(GROUPS) & set(run):
            row[group] = run[group]["top1"] / 100
            row[f"{group}_gain"] = Interval(*(value / 100 for value in run[group]["gain"]))
        yield row


def main() -> None:
    """Measure everything but fine-tuning, and write the page."""
    parser = parser_of(__doc__, "alternatives")
    parser.add_argument("--page", action="store_true", help="measure nothing: alternatives.md from the stored figures")
    parser.add_argument("--ours", action="store_true", help="measure refinement alone: the other rows are kept")
    arguments = parser.parse_args()
    if not arguments.page:
        made = {
            name: table.model_dump(mode="json") for name, table in measured(arguments.cache, arguments.ours).items()
        }
        with whole_file(FIGURES) as part:
            part.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    figures, tuned = (json.loads(path.read_text(encoding="utf-8")) for path in (FIGURES, FINE_TUNED))
    told = block({name: Table.model_validate(table) for name, table in figures.items()}, tuned)
    publish(DOCS, "alternatives", {"alternatives": told})
    print(told)


def measured(cache: Path, ours: bool) -> dict[str, Table]:
    """The table of each memory, without fine-tuning; of ``ours`` alone, with the other rows that are stored."""
    stored = json.loads(FIGURES.read_text(encoding="utf-8")) if ours else {}
    kept = {name: Table.model_validate(table).rows[OURS:] for name, table in stored.items()}
    subject = subject_of("emoji", cache)
    return {name: Comparison(subject, name).table(kept.get(name)) for name in MEMORIES}


if __name__ == "__main__":
    main()
