"""Shared by the commands that fill a memory: options, progress, and printing the outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..data.rows import Rows
from ..errors import ConfigError, MemoryLocked
from ..ingest.options import Cluster, IngestOptions
from ..ingest.source import names_of, open_source
from ..memory import Memory
from .service import KeyFileOption, ServiceOption, ServiceOptions, explain_lock, open_here_or_served, served_reco
from .shared import Given, JsonOption, OpenOptions, keeps, reco_of, say, take_flags

if TYPE_CHECKING:
    from ..ingest.plan import Plan
    from ..ingest.write import Outcome
    from ..reco import Reco

SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="source",
        help="A .csv/.tsv/.jsonl/.parquet of paths, bytes or URLs, a folder of images with .txt captions, .tar shards, "
        "vectors (.npz, .parquet), or another memory: its folder, or 'URL?collection=NAME' of a Qdrant server. Columns "
        "of other names than id, image and text: 'shop.csv?id=sku&image=photo&text=title'. See docs/sources.md.",
    ),
]
_NOWHERE: dict[str, Any] = {"memory": ":memory:", "memory_kind": "exact", "memory_options": None}
"""An empty memory."""


@dataclass(frozen=True)
class FillOptions(OpenOptions):
    """Options of the commands that fill a memory, besides ``IngestOptions`` and ``Cluster``."""

    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE", help="Keep these images out of the memory, such as those of an evaluation; repeat it."
        ),
    ] = None
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only say what would happen. Images are not decoded, nothing is written."),
    ] = False
    service: ServiceOption = None
    key_file: KeyFileOption = None
    as_json: JsonOption = False
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(help="local: this process. ray: workers of a Ray cluster read and encode, this one writes."),
    ] = "local"


class Fill:
    """One run: its options, and the source, opened before anything else is created.

    Args:
        source: as the user wrote it.
        given: the flags of :class:`FillOptions`, ``IngestOptions`` and ``Cluster``.
        named: store the name of the source with the pairs.
        only_known: skip rows whose id the memory, which must exist, does not hold.
    """

    def __init__(self, source: str, given: Given, *, named: bool = False, only_known: bool = False) -> None:
        self.asked = take_flags(FillOptions, given)
        self.cluster = cluster_of(self.asked.engine, given)
        self.via = ServiceOptions(self.asked.service, self.asked.key_file)
        self.via.check(self.asked.memory)
        if only_known and self.via.service is None:
            _ = self.asked.existing
        self.settings = self.asked.settings
        into = self.settings if self.via.service is None else None
        self.rows = open_source(source, model=self.asked.model or self.settings.model, into=into)
        if self.rows.note:
            typer.echo(f"note: {self.rows.note}", err=True)
        if named:
            name, others = names_of(self.rows)
            given = {"source": name, "also": others if given.get("source", name) == name else frozenset()} | given
        if "threshold" in given:
            given.setdefault("duplicates", "report")
        beside = {field: self._beside(what) for field, what in (("rejected", "rejected"), ("listed", "duplicates"))}
        self.options = IngestOptions(**{**beside, **given}, only_known=only_known)

    def _beside(self, what: str) -> Path:
        """A list is named after the memory's folder, or after its collection, in the working folder."""
        memory = self.settings.memory
        served = "://" in memory or memory == ":memory:" or self.via.service is not None
        place = Path(self.settings.memory_collection) if served else Path(memory).expanduser()
        if not place.name.strip("."):  # ``.`` or ``..``
            place = place.resolve()
        return place.with_name(f"{place.name}.{what}.jsonl")

    def open_reco(self, **settings: Any) -> Reco:
        """The model with the memory to fill, through the service that has it open; settings may choose another."""
        if not settings:
            try:
                return self._open_served() or self.open_reco(memory=self.settings.memory)
            except MemoryLocked as error:
                raise explain_lock(error, self.settings) from error
        chosen = self.settings.model_copy(update={"memory": settings.pop("memory", self.settings.memory)})
        return reco_of(self.asked.model, chosen, on_memory_failure="fail", **settings)

    def open_store(self) -> Memory:
        """The memory that the command names, of any encoder; it must exist."""
        return open_here_or_served(self.settings, self.via, None)

    def _open_served(self) -> Reco | None:
        changed = {"on_memory_failure": "fail"} | ({} if self.asked.model is None else {"model": self.asked.model})
        return served_reco(self.settings.model_copy(update=changed), self.via)

    def plan(self, max_delete: float | None = None) -> Plan:
        """What the run would do to the memory, or to an empty one if there is none."""
        from ..ingest.plan import plan

        location = self.settings.memory
        there = "://" in location or self.via.service is not None or Path(location).expanduser().exists()
        with (
            keeps("nothing was written"),
            self.open_reco(**({} if there else _NOWHERE)) as reco,
            progress_of(self.rows, "look") as progress,
        ):
            return plan(self.rows, reco.memory.store, self.options, max_delete=max_delete, progress=progress)

    def run(self, reco: Reco, what: str, **more: Any) -> Outcome:
        """Fill the memory, with a progress bar, and allow the playground to show its image files."""
        from ..ingest.near import excluded_images
        from ..ingest.run import ingest
        from ..memory.picture_folders import note_folders

        location = reco.memory.store.location
        with (
            keeps(f"what was written stays in {location}; the same command resumes from there"),
            progress_of(self.rows, what) as progress,
        ):
            note_folders(location, self.rows.folders)
            excluded = excluded_images(self.asked.exclude or (), reco)
            more |= {"cluster": self.cluster, "excluded": excluded, "progress": progress}
            return ingest(self.rows, reco, self.options, **more)

    def do(self, what: str, *, max_delete: float | None = None, **more: Any) -> None:
        """Run it, or plan it with --dry-run, and print the outcome."""
        if self.asked.dry_run:
            outcome: Outcome = self.plan(max_delete)
        else:
            with self.open_reco() as reco:
                outcome = self.run(reco, what, **more)
        result = outcome.to_dict()
        del result["seconds"]
        if _plan_in(outcome):
            result["dry_run"] = True
        say(result, "\n".join(lines(outcome)), self.asked.as_json)


@contextmanager
def progress_of(rows: Rows, what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr with rate, time left and rejected rows; yields a function that advances it."""
    from ..progress import progress_bar

    with progress_bar(total=rows.total, desc=what, unit="row") as bar:

        def advance(read: int, rejected: int) -> None:
            bar.set_postfix(rejected=rejected, refresh=False)
            bar.update(read)

        yield advance


def lines(outcome: Outcome) -> Iterator[str]:
    """An outcome as text: counts that are not zero, then where lists are and the most frequent reasons."""
    plan = _plan_in(outcome)
    refused = plan.refused if plan else None
    counts = [
        (outcome.replaced, "replaced"),
        (outcome.unchanged, "unchanged"),
        (outcome.repeated, "repeated"),
        (outcome.missing, "not in the memory"),
        (outcome.excluded, "excluded"),
        (outcome.dropped, "near-duplicates dropped"),
        (outcome.merged, "near-duplicates merged"),
        (outcome.reported, "near-duplicates reported"),
        (0 if refused else outcome.deleted, "deleted"),
        (outcome.rejected, "rejected"),
    ]
    added = f"{'would add' if plan else 'added'} {outcome.added:,} pairs"
    others = "".join(f", {count:,} {what}" for count, what in counts if count)
    yield f"{added}{others}; the memory holds {outcome.pairs:,}"
    if refused:
        yield f"would delete nothing, and fail: {refused}"
    if outcome.others:
        from ..ingest.plan import describe_sources

        done = f"copied {outcome.copied:,} pairs from" if outcome.copied else "left out, of"
        yield f"{done} the version before: {describe_sources(outcome.others)}"
    if outcome.cut:
        yield f"{outcome.cut:,} captions are longer than the encoder reads, and were cut"
    if outcome.kept:
        yield (
            f"{outcome.kept:,} pairs are gone from the source and stayed, because rejected rows without an id may be "
            "theirs: fix those rows and sync again"
        )
    if outcome.vectors:
        yield outcome.vectors
    for reason, times in list(outcome.reasons.items())[:5]:
        yield f"  {times:,} x {reason}"
    for path in outcome.files.values():
        yield f"listed in {path}"


def _plan_in(outcome: Outcome) -> Plan | None:
    from ..ingest.plan import Plan

    return outcome if isinstance(outcome, Plan) else None


def cluster_of(engine: Literal["local", "ray"], given: Given) -> Cluster | None:
    """The Ray cluster of the flags; None for this process."""
    cluster = take_flags(Cluster, given)
    if engine == "ray":
        from ..ingest import ray_engine  # noqa: F401 - raises MissingExtra

        return cluster
    for name, value in vars(cluster).items():
        if value is not None:
            raise ConfigError(f"--{name.replace('_', '-')} {value} is about a Ray cluster: give --engine ray, too")
    return None
