"""``reco memory build, add, update, sync, remove``: a memory from a source, and its daily changes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..artifact import Artifact
from ..config import Settings
from ..data.source import read_lines
from ..errors import ConfigError, InputError, MemoryLocked
from ..ingest.options import Cluster, IngestOptions
from ..ingest.source import open_source
from ..memory import Memory, memory_of
from ..memory.transfer import lacking
from ..memory.versions import FolderVersions, Version, Versions, version_name
from .ingesting import Fill, FillOptions, SourceArgument, lines, progress_of
from .memory_versions import describe, is_server, open_versions_of
from .service import KeyFileOption, ServiceOption, ServiceOptions, explain_lock, open_here_or_served
from .shared import Given, JsonOption, MemoryFlags, keeps, say, spell, take_flags, takes

if TYPE_CHECKING:
    from ..ingest.write import Writer


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
    settings = fill.settings
    fingerprint = Artifact.load(settings.model if fill.asked.model is None else fill.asked.model).manifest.fingerprint
    again = "the same command with --resume" if is_server(settings) else "the same command"
    with (
        keeps(f"what was written stays beside the version in use; {again} continues"),
        closing(open_versions_of(settings, fill.via)) as versions,
    ):
        live = versions.in_use(fingerprint)
        swap.check(fill, live, versions)
        begun = None if fresh else versions.find_unfinished(fingerprint)
        if begun is not None and begun.waits:
            typer.echo(f"{begun.name} was built and not put to use: it is brought up to date, and put to use", err=True)
        name = versions.begin(fingerprint) if begun is None else begun.name
        place = {"memory_collection": name} if is_server(settings) else {}
        where = str(versions.folder(name)) if isinstance(versions, FolderVersions) else settings.memory
        with fill.open_reco(memory=where, **place) as reco:
            outcome = fill.run(reco, "build", finish=lambda writer: swap.finish(writer, fill, live))
        version = versions.finish(name, outcome.held + outcome.copied, fingerprint, wait_s=wait)
        if used := swap.wanted or live is None or live.pairs == 0:  # nothing is lost where nothing was in use
            version = versions.use(name)
        late = swap.bring_late(fill, _replaced(settings, versions, live)) if live and swap.is_to_look_back else 0
    state = "is in use" if used else f"is ready: reco memory use {name} {spell(settings)}"
    came = [f"and {late:,} pairs that were added to the version before meanwhile"] if late else []
    text = "\n".join([*lines(outcome), f"{name} holds {outcome.pairs:,} pairs and {state}", *came])
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
    """Delete pairs by id; unknown ids are no error. Needs no model."""
    via = ServiceOptions(service, key_file)
    asked = take_flags(MemoryFlags, given)
    via.check(asked.memory)
    if not ids and source is None:
        raise InputError("nothing to remove: give ids, or --from a file of them")
    wanted = [*(ids or []), *(_ids_in(source, asked.settings) if source else [])]
    with closing(open_here_or_served(asked.settings, via, None)) as store:
        removed, left = store.delete(wanted), store.count()
    say({"removed": removed, "pairs": left}, f"removed {removed:,} pairs; {left:,} are left", as_json)


def _ids_in(source: str, settings: Settings) -> list[str]:
    """Ids of a list, or of a source, also of rejected rows that have one."""
    if (path := Path(source)).suffix.lower() == ".txt":
        return read_lines(path)
    return [row.id for row in open_source(source, into=settings) if row.id is not None]
