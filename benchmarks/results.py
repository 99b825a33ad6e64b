"""Gain without harm, on four kinds of drawings: makes docs/measurements/results.md and its pictures.

    python -m benchmarks.results --docs docs/measurements  # everything
    python -m benchmarks.results --sets emoji flags        # some of it; --docs takes the others from an earlier run

For every data set one recipe with one set of constants: the memory learns its calibration from its own pairs, without
labels; everything is measured on entities that the encoder has not met. Nothing here is chosen on the test entities;
the baseline is chosen on the development entities, anew for every memory. Takes about ten minutes on two cores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from reco_plugin.evaluate.findings import Chart, Column, Findings, Line, Section, Table
from reco_plugin.evaluate.intervals import Interval, bootstrap
from reco_plugin.quickstart.dataset import EntitySplit
from reco_plugin.report import markdown_section
from reco_plugin.report.markdown import markdown_table

from .research import DRAWN, parser_of, publish, subject_of
from .subject import Hits, Subject, Way

SHARES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
ENCODER = "scratch"
_NAMED = (Column(key="name", title=""),)


class Study:
    """One subject, and what every table shares."""

    def __init__(self, subject: Subject, elsewhere: Subject) -> None:
        self.subject, self.elsewhere = subject, elsewhere
        self.ours = Way(subject.full)
        self.groups: list[EntitySplit] = [split for split in ("unseen", "seen") if split in subject.data.splits]

    def gain(
        self, group: Sequence[EntitySplit], after: Hits, before: Hits, queries: Sequence[EntitySplit] = ()
    ) -> Interval:
        """Difference of two measurements, with its 95 % interval over entities."""
        return bootstrap(after.astype(float) - before, self.subject.entities_of(queries or group))

    def row(self, name: str, way: Way | None, versus: Way | None = None) -> dict[str, object]:
        """Top-1 per group, and the gain over frozen or another way."""
        row: dict[str, object] = {"name": name}
        for group in self.groups:
            hits = self.subject.hits([group], way)
            row[group] = float(hits.mean())
            if way is not None:
                row[f"{group}_gain"] = self.gain([group], hits, self.subject.hits([group], versus))
        return row

    def columns(self) -> tuple[Column, ...]:
        """Name, then top-1 and gain of every group."""
        found = list(_NAMED)
        for group in self.groups:
            found.append(Column(key=group, title=f"{group}, top-1", kind="percent"))
            found.append(Column(key=f"{group}_gain", title=f"gain in {group}, top-1", kind="points"))
        return tuple(found)

    def main(self) -> Table:
        """Frozen, ours per side, and what it has to beat."""
        full = self.subject.full
        ways: dict[str, Way | None] = {
            "frozen": None,
            "best baseline": self.subject.best_baseline(full),
        }
        ways |= {
            "ours, images only": replace(self.ours, sides=("image",)),
            "ours, images only, bold": replace(self.ours, sides=("image",), caution="bold"),
            "ours, prompts only": replace(self.ours, sides=("text",)),
            "ours": self.ours,
        }
        rows = [self.row(name, way) for name, way in ways.items()]
        return Table(title="Clean memory", columns=self.columns(), rows=tuple(rows))

    def noise(self) -> tuple[Table, list[Chart]]:
        """Shares of wrong captions: ours against the baseline that is best with that memory."""
        rows: list[dict[str, object]] = []
        lines: dict[str, dict[str, list[float]]] = {group: {"ours": [], "best baseline": []} for group in self.groups}
        for share in SHARES:
            memory = self.subject.with_wrong_captions(share) if share else self.subject.full
            ways = {"ours": replace(self.ours, memory=memory), "best baseline": self.subject.best_baseline(memory)}
            row: dict[str, object] = {"name": f"{share:.0%}"}
            for group in self.groups:
                hits = {name: self.subject.hits([group], way) for name, way in ways.items()}
                row[group] = float(hits["ours"].mean())
                row[f"{group}_gain"] = self.gain([group], hits["ours"], self.subject.hits([group], None))
                row[f"{group}_versus"] = self.gain([group], hits["ours"], hits["best baseline"])
                for name, found in hits.items():
                    lines[group][name].append(float(found.mean()))
            rows.append(row)
        versus = [
            Column(key=f"{g}_versus", title=f"{g}, ours against best baseline", kind="points") for g in self.groups
        ]
        columns = (Column(key="name", title="wrong captions"), *self.columns()[1:], *versus)
        charts = [
            Chart(
                title=f"{self.subject.data.name}, {group}: accuracy as captions go wrong",
                x_title="share of wrong captions",
                y_title="top-1",
                x=SHARES,
                lines=tuple(Line(name=name, y=tuple(values)) for name, values in lines[group].items()),
                baseline=float(self.subject.hits([group], None).mean()),
            )
            for group in self.groups
        ]
        return Table(title="Wrong captions", columns=columns, rows=tuple(rows)), charts

    def harm(self) -> Table:
        """Memories that cannot answer, and labels of all splits at once."""
        subject, known = self.subject, {split for split in self.subject.data.splits if split != "unseen"}
        memories = {
            "no pairs": subject.memory([]),
            "no pairs of unseen entities": subject.memory(subject.rows(known)),
            "pairs of unseen entities only": subject.memory(subject.rows(["unseen"])),
        }
        memories[f"{self.elsewhere.data.name} instead"] = self.elsewhere.full
        rows = []
        for name, memory in memories.items():
            row = self.row(name, replace(self.ours, memory=memory))
            rows.append(row)
        return Table(title="Memories that cannot answer", columns=self.columns(), rows=tuple(rows))

    def retrieval(self) -> Table:
        """A worded caption asks for drawings of its entity; the index of drawings is plain."""
        rows: list[dict[str, object]] = []
        for group in self.groups:
            before, after = self.subject.text_to_image(group, None), self.subject.text_to_image(group, self.ours)
            rows.append(
                {
                    "name": group,
                    "frozen": float(before.mean()),
                    "ours": float(after.mean()),
                    "gain": self.gain([group], after, before),
                }
            )
        columns = (
            Column(key="name", title="captions of"),
            Column(key="frozen", title="frozen, R@1", kind="percent"),
            Column(key="ours", title="query refined, R@1", kind="percent"),
            Column(key="gain", title="gain in R@1", kind="points"),
        )
        return Table(title="Text to image, the index untouched", columns=columns, rows=tuple(rows))

    def findings(self) -> Findings:
        """All of it."""
        data, main = self.subject.data, self.main()
        noise, charts = self.noise()
        counts = {split: data.splits.count(split) for split in dict.fromkeys(data.splits)}
        about = (
            f"{len(data.memory):,} pairs of {len(data.names):,} entities ("
            + ", ".join(f"{count} {split}" for split, count in counts.items())
            + f"), {len(data.queries):,} queries in two styles that nothing was trained on. "
            + "Encoder: the shipped mini CLIP."
        )
        section = Section(
            key=f"{data.name}-{ENCODER}",
            title=f"{data.name}, {ENCODER} encoder",
            about=about,
            tables=(main, noise, self.harm(), self.retrieval()),
            charts=tuple(charts),
        )
        return Findings(
            name=f"{data.name}, {ENCODER}",
            command=f"python -m benchmarks.results --sets {data.name}",
            setup={"encoder": str(self.subject.fingerprint), "pairs": len(data.memory), "entities": counts},
            summary=(),
            sections=(section.model_copy(update={"key": "main"}),),
        )


def studies(sets: Sequence[str], cache: Path) -> Iterator[Study]:
    """The data sets; emoji are the memory of another domain for the others, flags for emoji."""
    for name in sets:
        yield Study(subject_of(name, cache), subject_of("flags" if name == "emoji" else "emoji", cache))


def blocks(found: Sequence[Findings]) -> dict[str, str]:
    """The blocks of docs/measurements/results.md."""
    parts = []
    for findings in found:
        (section,) = findings.sections
        prefix = f"results/{findings.name.replace(', ', '-')}"
        parts.append(markdown_section(section, prefix=prefix) + f"\n\nMade by `{findings.command}`.")
    return {"overview": markdown_table(overview(found)), "sets": "\n\n".join(parts)}


def overview(found: Sequence[Findings]) -> Table:
    """One line per data set."""
    rows = []
    for findings in found:
        main, noise, harm, retrieval = findings.sections[0].tables
        frozen, ours = main.rows[0], main.rows[-1]
        other = harm.rows[-1]  # another domain
        group = "seen" if "seen" in ours else "unseen"
        rows.append(
            {
                "name": findings.name,
                "frozen": frozen["unseen"],
                "ours": ours["unseen"],
                "gain": ours["unseen_gain"],
                "versus": noise.rows[0]["unseen_versus"],
                "seen": ours.get("seen_gain"),
                "harm": other[f"{group}_gain"],
                "retrieval": retrieval.rows[0]["gain"],
            }
        )
    columns = (
        Column(key="name", title="data set, encoder"),
        Column(key="frozen", title="frozen, unseen", kind="percent"),
        Column(key="ours", title="ours, unseen", kind="percent"),
        Column(key="gain", title="gain", kind="points"),
        Column(key="versus", title="against best baseline", kind="points"),
        Column(key="seen", title="gain in seen", kind="points"),
        Column(key="harm", title="irrelevant memory", kind="points"),
        Column(key="retrieval", title="text to image, gain in R@1", kind="points"),
    )
    return Table(title="Overview", columns=columns, rows=tuple(rows))


def main() -> None:
    """Measure the chosen sets; the page has those that an earlier run measured, too."""
    parser = parser_of(__doc__, "results", sets=DRAWN)
    parser.add_argument("--runs", type=Path, default=Path("runs/results"), help="where findings go, for `reco report`")
    given = parser.parse_args()
    for study in studies(given.sets, given.cache):
        findings = study.findings()
        folder = given.runs / findings.name.replace(", ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        findings.write(folder)
        print(markdown_section(findings.sections[0], prefix=None), flush=True)
    if given.docs:
        found = {name: Findings.read(given.runs / f"{name}-{ENCODER}") for name in DRAWN}
        charts = [(f"{name}-{ENCODER}", findings.sections[0]) for name, findings in found.items()]
        publish(given.docs, "results", blocks(list(found.values())), charts)


if __name__ == "__main__":
    main()
