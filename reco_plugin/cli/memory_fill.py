"""``reco memory build, add, update, sync, remove``: a memory from a source, and its daily changes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..api_encoder import load_model
from ..config import Settings
from ..data.rows import Rows
from ..data.source import read_lines
from ..errors import ConfigError, InputError, MemoryLocked
from ..files import in_home
from ..ingest.options import Cluster, IngestOptions
from ..ingest.source import name_of, open_source
from ..memory import Memory, memory_of
from ..memory.transfer import lacking
from ..memory.version_names import version_name
from ..memory.versions import FolderVersions, Version, Versions
from ..values import counted, show
from .memory_versions import describe, is_server, open_versions_of
from .service import KeyFileOption, ServiceOption, ServiceOptions, explain_lock, open_here_or_served, served_reco
from .shared import Given, JsonOption, MemoryFlags, OpenOptions, keeps, reco_of, say, spell, take_flags, takes

if TYPE_CHECKING:
    from ..ingest.plan import Plan
    from ..ingest.write import Outcome, Writer
    from ..reco import Reco

SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="source",
        help="A .csv/.tsv/.jsonl/.parquet of paths, bytes or URLs, a folder of images with .txt captions, .tar shards, "
        "vectors (.npz, .parquet), another memory: its folder, or 'URL?collection=NAME' of a Qdrant server, or the "
        "index of a search engine: 'postgresql://HOST/DATABASE?table=NAME&text=title'. Columns "
        "of other names than id, image and text: 'shop.csv?id=sku&image=photo&text=title'. See docs/sources.md.",
    ),
]
_LOOKED_FOR, _NAMED = 1_000, 3  # of the ids to remove: those that are looked for first, to name some that are not there
_NOWHERE: dict[str, Any] = {"memory": ":memory:", "memory_options": None}
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
            given = {"source": name_of(self.rows)} | given
        if "threshold" in given:
            given.setdefault("duplicates", "report")
        beside = {field: self._beside(what) for field, what in (("rejected", "rejected"), ("listed", "duplicates"))}
        self.options = IngestOptions(**{**beside, **given}, only_known=only_known)

    def _beside(self, what: str) -> Path:
        """A list is named after the memory's folder, or after its collection, in the working folder."""
        memory = self.settings.memory
        served = "://" in memory or memory == ":memory:" or self.via.service is not None
        place = Path(self.settings.memory_collection) if served else in_home(memory)
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
        there = "://" in location or self.via.service is not None or in_home(location).exists()
        with (
            keeps("nothing was written"),
            self.open_reco(**({} if there else _NOWHERE)) as reco,
            progress_of(self.rows, "look") as progress,
        ):
            return plan(self.rows, reco.memory.store, self.options, max_delete=max_delete, progress=progress)

    def run(self, reco: Reco, what: str, **more: Any) -> Outcome:
        """Fill the memory, with a progress bar, and allow the playground to show its image files."""
        from ..data.picture_folders import note_folders
        from ..ingest.near import excluded_images
        from ..ingest.run import ingest

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
        (outcome.reported, "near-duplicates reported"),
        (0 if refused else outcome.deleted, "deleted"),
        (outcome.rejected, "rejected"),
    ]
    added = f"{'would add' if plan else 'added'} {counted(outcome.added, 'pair')}"
    others = "".join(f", {count:,} {what}" for count, what in counts if count)
    yield f"{added}{others}; the memory holds {outcome.pairs:,}"
    if refused:
        yield f"would delete nothing, and fail: {refused}"
    if outcome.others:
        from ..ingest.plan import describe_sources

        done = f"copied {counted(outcome.copied, 'pair')} from" if outcome.copied else "left out, of"
        yield f"{done} the version before: {describe_sources(outcome.others)}"
    if outcome.cut:
        longer = counted(outcome.cut, "caption is", "captions are")
        yield f"{longer} longer than the encoder reads; what is beyond is cut"
    if outcome.kept:
        yield (
            f"{counted(outcome.kept, 'pair is', 'pairs are')} gone from the source but still here, because rejected "
            "rows without an id may be theirs: fix those rows and sync again"
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


@takes(FillOptions, Cluster, IngestOptions)
def build_command(
    origin: SourceArgument,
    *,
    given: Given,
    swap: Annotated[
        bool,
        typer.Option("--swap", help="Build a version with exactly the source's pairs, and put it to use atomically."),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="On a server: resume the newest unfinished version. A folder always resumes."),
    ] = False,
    keep_others: Annotated[
        bool | None,
        typer.Option(
            "--keep-others/--drop-others",
            help="With --swap: copy pairs of the version in use that did not come from the source, or leave them out.",
            show_default="stop if there are any",
        ),
    ] = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait until a server has indexed it.")] = 3600,
) -> None:
    """Build a memory from a source; an interrupted build resumes when run again.

    A folder is filled in place: rows are added or replaced, nothing is deleted. With --swap, and always on a server, a
    new version is built beside the one in use; the old one stays for `rollback`. Where none with pairs is in use, the
    new one is put to use at once.
    """
    fill = Fill(origin, given, named=True)
    if fill.via.service is not None and swap:
        raise ConfigError("--swap builds a folder beside the memory: give --memory, on the machine of the service")
    served = is_server(fill.settings) and fill.via.service is None
    if (swap or served) and not fill.asked.dry_run:
        _build_version(fill, _Swap(swap, keep_others), fresh=served and not resume, wait=wait)
    else:
        fill.do("build")


@dataclass
class _Swap:
    """Whether a version is put to use, and what becomes of other pairs of the one before."""

    wanted: bool
    keep_others: bool | None  # None: stop if there are any
    decided: set[str] = field(default_factory=set)  # ids of others that were copied, or left out as excluded
    brings: Callable[[str], bool] = lambda _: False  # whether the source has a row of an id

    def check(self, fill: Fill, live: Version | None, versions: Versions) -> None:
        """Look, before anything is encoded, for what would stop the swap: other pairs, or who has the folder open."""
        if self.wanted:
            try:
                versions.check_swap()
            except MemoryLocked as error:
                raise explain_lock(error, fill.settings) from error
        from ..ingest.plan import find_others

        if self.wanted and live is not None and self.keep_others is None:
            with self._reading(fill, live) as store, progress_of(fill.rows, "compare") as progress:
                found = find_others(store, fill.options, fill.rows, progress)
            found.refuse(fill.rows.name, live.name, "nothing was encoded")

    def finish(self, writer: Writer, fill: Fill, live: Version | None) -> None:
        """Make the new version hold the source's pairs, and the others of the one before if they are kept."""
        from ..ingest.plan import Others

        writer.delete_others()
        if not self.wanted or live is None:
            return
        try:
            with self._reading(fill, live) as store:
                others = Others.of(store, fill.options, writer.brought)
                if self.keep_others:
                    others.copy(store, writer)
        except MemoryLocked:
            if self.keep_others is not False:
                raise
            return
        if self.keep_others is None:
            others.refuse(fill.rows.name, live.name, "what was built stays, and is gone on with")
        writer.outcome.others, self.decided, self.brings = dict(others.sources), set(others.ids), writer.brought

    def bring_late(self, fill: Fill, before: Settings) -> int:
        """Copy other pairs that came into the version before until it was replaced; returns how many.

        Nobody has said that these may be lost, as with ``--drop-others``; their writers were told that they are stored.
        """
        from ..ingest.plan import Others

        try:
            with closing(memory_of(before, None, create=False)) as old:
                found = Others.of(old, fill.options, self.brings).ids
                late = [id_ for id_ in found if id_ not in self.decided]
                if late:
                    with closing(fill.open_store()) as new:
                        for records in old.scroll(ids=late):
                            new.upsert(lacking(records, new))
                        new.flush()
        except MemoryLocked as error:
            warnings.warn(
                f"pairs that were added until the swap may be missing in the new version: {error}", stacklevel=2
            )
            return 0
        return len(late)

    @property
    def is_to_look_back(self) -> bool:
        """Whether other pairs of the version before are wanted, or nobody has said that they are not."""
        return self.wanted and self.keep_others is not False

    @staticmethod
    @contextmanager
    def _reading(fill: Fill, live: Version) -> Iterator[Memory]:
        try:
            store = fill.open_store()
        except MemoryLocked as error:
            raise MemoryLocked(
                f"{error} It is {live.name}, the version in use, and has to be read for pairs that did not come from "
                f"{fill.rows.name}; or give --drop-others, to leave such pairs out of the new version"
            ) from error
        with closing(store):
            yield store


def _build_version(fill: Fill, swap: _Swap, *, fresh: bool, wait: float) -> None:
    from ..opinions import bring_over

    settings = fill.settings
    fingerprint = load_model(settings.model if fill.asked.model is None else fill.asked.model).manifest.fingerprint
    again = "the same command with --resume" if is_server(settings) else "the same command"
    with (
        keeps(f"what was written stays beside the version in use; {again} continues"),
        closing(open_versions_of(settings, fill.via)) as versions,
    ):
        live = versions.in_use(fingerprint)
        swap.check(fill, live, versions)
        begun = None if fresh else versions.find_unfinished(fingerprint)
        name = versions.begin(fingerprint) if begun is None else begun.name
        place = {"memory_collection": name} if is_server(settings) else {}
        where = str(versions.folder(name)) if isinstance(versions, FolderVersions) else settings.memory
        with fill.open_reco(memory=where, **place) as reco:
            outcome = fill.run(reco, "build", finish=lambda writer: swap.finish(writer, fill, live))
            if live is not None:
                bring_over(versions.header_of(live), reco.memory.store)
        version = versions.finish(name, outcome.held + outcome.copied, fingerprint, wait_s=wait)
        if used := swap.wanted or live is None or live.pairs == 0:  # nothing is lost where nothing was in use
            version = versions.use(name)
        late = swap.bring_late(fill, _replaced(settings, versions, live)) if live and swap.is_to_look_back else 0
    state = "is in use" if used else f"is ready: reco memory use {name} {spell(settings)}"
    came = [f"and {counted(late, 'pair')} that were added to the version before meanwhile"] if late else []
    text = "\n".join([*lines(outcome), f"{name} holds {counted(outcome.pairs, 'pair')} and {state}", *came])
    say({**outcome.to_dict(), **describe(version), "late": late}, text, fill.asked.as_json)


def _replaced(settings: Settings, versions: Versions, live: Version) -> Settings:
    """The settings of the version that was in use before another one was put to use."""
    if not isinstance(versions, FolderVersions):
        return settings.model_copy(update={"memory_collection": live.name})
    name = live.name if live.number else version_name(live.name, 1)  # a plain folder was renamed
    return settings.model_copy(update={"memory": str(versions.folder(name))})


@takes(FillOptions, Cluster, IngestOptions, but=("source", "dry_run"))
def add_command(origin: SourceArgument, *, given: Given) -> None:
    """Encode pairs and store them; an id that exists is replaced if its row changed, so run it again to resume."""
    Fill(origin, given).do("add")


@takes(FillOptions, Cluster, IngestOptions, but=("exclude", "source", "duplicates", "threshold"))
def update_command(origin: SourceArgument, *, given: Given) -> None:
    """Replace pairs whose rows changed; rows with an unknown id are counted and skipped."""
    Fill(origin, given, only_known=True).do("update")


@takes(FillOptions, Cluster, IngestOptions)
def sync_command(
    origin: SourceArgument,
    *,
    given: Given,
    max_delete: Annotated[
        float, typer.Option(min=0, max=1, help="Delete nothing if a larger share of the source's pairs would go.")
    ] = 0.2,
) -> None:
    """Make the memory match the source: add, replace, and delete pairs that are gone from the source.

    Deletes only pairs that `build` or `sync` added from a source of the same name.
    """
    from ..ingest.write import Writer

    finish = partial(Writer.delete_gone, max_share=max_delete)
    Fill(origin, given, named=True).do("sync", max_delete=max_delete, finish=finish)


@takes(MemoryFlags)
def remove_command(
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of the pairs.")] = None,
    *,
    given: Given,
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="FILE", help="Also the ids in a .txt, one per line, or of a source's rows."),
    ] = None,
    service: ServiceOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete pairs by id; ids that are not there are no error, and named in a warning. Needs no model."""
    via = ServiceOptions(service, key_file)
    asked = take_flags(MemoryFlags, given)
    via.check(asked.memory)
    if not ids and source is None:
        raise InputError("nothing to remove: give ids, or --from a file of them")
    wanted = [*(ids or []), *(_ids_in(source, asked.settings) if source else [])]
    with closing(open_here_or_served(asked.settings, via, None)) as store:
        wanted = list(dict.fromkeys(wanted))
        found = {name for name, _ in store.payloads(wanted[:_LOOKED_FOR])} if wanted else set()
        removed, left = store.delete(wanted), store.count()
    if (absent := len(wanted) - removed) > 0:
        names = [show(name) for name in wanted[:_LOOKED_FOR] if name not in found][:_NAMED]
        such = f", as {', '.join(names)}" if names else ""
        typer.echo(f"warning: {counted(absent, 'id is', 'ids are')} of no pair of the memory{such}", err=True)
    say(
        {"removed": removed, "pairs": left},
        f"removed {counted(removed, 'pair')}; {counted(left, 'is', 'are')} left",
        as_json,
    )


def _ids_in(source: str, settings: Settings) -> list[str]:
    """Ids of a list, or of a source, also of rejected rows that have one."""
    if (path := Path(source)).suffix.lower() == ".txt":
        return read_lines(path)
    return [row.id for row in open_source(source, into=settings) if row.id is not None]
