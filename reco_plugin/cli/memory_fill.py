"""``reco memory build``, ``add`` and ``sync``: fill a memory from a source, and keep it up to date."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..encoders.remote import load_model
from ..errors import ConfigError, DataError
from ..files import in_home
from ..fusion.explain import why_plain
from ..ingest.corrections import correct
from ..ingest.run_options import Cluster, IngestOptions
from ..memory import Memory, memory_of
from ..memory.versions import FolderVersions, Version, version_name
from ..settings import Settings
from ..sources.reading import open_source, source_name
from ..values import SOURCE, counted
from .shared import (
    Given,
    JsonOption,
    OpenOptions,
    calibration_lines,
    explained_lock,
    is_server,
    keeps,
    on_one_line,
    open_here_or_served,
    reco_here_or_served,
    reco_of,
    say,
    take_flags,
    takes,
)

if TYPE_CHECKING:
    from ..ingest.write import Outcome, Writer
    from ..reco import Reco

_SOURCE = typer.Argument(
    metavar="SOURCE",
    help="A table of paths or URLs (.csv, .tsv, .jsonl, .parquet), a folder of images with .txt captions, .tar shards, "
    "vectors (.npz, .parquet), or the index of a search engine, as in "
    "'postgresql://HOST/DATABASE?table=NAME&text=title'. Other column names than id, image and text are named, as in "
    "'shop.csv?id=sku&image=photo&text=title'. See docs/sources.md.",
)


@dataclass(frozen=True)
class FillOptions(OpenOptions):
    """Options of the commands that fill a memory, besides ``IngestOptions`` and ``Cluster``."""

    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="SOURCE", help="Keep these images out of the memory; repeat the flag for more."),
    ] = None
    corrections: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Read the source with the decisions of `reco clean` about its captions, in corrections.csv.",
        ),
    ] = None
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what would happen; decode no image and write nothing.")
    ] = False
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(help="Read and encode in this process (local), or on the workers of a Ray cluster (ray)."),
    ] = "local"
    as_json: JsonOption = False


@dataclass(frozen=True)
class _Build(FillOptions):
    """Options of a build only."""

    swap: Annotated[
        bool,
        typer.Option("--swap", help="Build a version beside the one in use, and put it to use atomically."),
    ] = False
    drop_others: Annotated[
        bool, typer.Option("--drop-others", help="With --swap, leave out the pairs that came from other sources.")
    ] = False
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue the newest unfinished version on a server; a folder always resumes."),
    ] = False


@takes(_Build, Cluster, IngestOptions)
def build_command(
    origin: Annotated[str | None, _SOURCE] = None,
    *,
    given: Given,
    relearn: Annotated[
        bool, typer.Option("--relearn", help="Without a source: learn again from the pairs of the memory.")
    ] = False,
) -> None:
    """Build a memory from a source; an interrupted build resumes when you run it again.

    A folder is filled in place: rows are added or replaced, nothing is deleted. With --swap, and always on a server, a
    new version is built beside the one in use, which stays for `versions --previous`. If the version in use is empty,
    the new one is put to use at once.
    """
    if relearn == (origin is not None):
        raise ConfigError("give a source to build from, or --relearn to learn again from the memory's pairs")
    if origin is None:
        _relearn(take_flags(_Build, given))
        return
    fill = Fill(origin, take_flags(_Build, given), given, named=True)
    if (fill.flags.swap or is_server(fill.settings)) and not fill.flags.dry_run:
        _build_version(fill, fill.flags)
    else:
        fill.do("build")


@takes(FillOptions, Cluster, IngestOptions, but=("source",))
def add_command(
    origin: Annotated[str, _SOURCE],
    *,
    given: Given,
    only_known: Annotated[
        bool, typer.Option("--only-known", help="Only replace pairs that the memory holds, and skip unknown ids.")
    ] = False,
) -> None:
    """Encode pairs and store them; an id that exists is replaced if its row changed.

    Rows that the memory holds unchanged are skipped, so run the command again to resume.
    """
    Fill(origin, take_flags(FillOptions, given), given, existing=only_known, only_known=only_known).do("add")


@takes(FillOptions, Cluster, IngestOptions)
def sync_command(
    origin: Annotated[str, _SOURCE],
    *,
    given: Given,
    max_delete: Annotated[
        float,
        typer.Option(metavar="SHARE", min=0, max=1, help="Delete nothing if a larger share of the pairs would go."),
    ] = 0.2,
    max_replace: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            min=0,
            max=1,
            help="Write nothing if a larger share of the pairs would be replaced. Below 1, the source is read twice.",
        ),
    ] = 0.5,
    create: Annotated[bool, typer.Option("--create", help="Make the memory if there is none.")] = False,
) -> None:
    """Make the memory match the source: add, replace, and delete pairs that are gone from the source.

    Deletes only pairs that `build` or `sync` added from a source of the same name.
    """
    from ..ingest.write import Writer

    unnamed = "source" not in given
    fill = Fill(origin, take_flags(FillOptions, given), given, named=True, existing=not create)

    def check(reco: Reco) -> None:
        if unnamed:
            _check_source(reco.memory.store, str(fill.options.source))
        if max_replace < 1 and not fill.flags.dry_run and len(reco.memory):
            look = fill.run(reco, "look", dry_run=True, finish=partial(Writer.check_replaced, max_share=max_replace))
            if look.refused:
                raise DataError(f"nothing was written: {look.refused}")

    def finish(writer: Writer) -> None:
        writer.delete_gone(max_delete)
        if fill.flags.dry_run:
            writer.check_replaced(max_replace)

    fill.do("sync", check, finish=finish)


def _check_source(store: Memory, source: str) -> None:
    """Refuse a source without pairs in a memory that other sources filled, since it may be one of them, renamed.

    Raises:
        ConfigError: names the other sources.
    """
    from ..ingest.fill import describe_sources

    others = Counter[str]()
    for _, payload in store.payloads():
        if payload.get(SOURCE) == source:
            return
        if SOURCE in payload:
            others[str(payload[SOURCE])] += 1
    if others:
        raise ConfigError(
            f"no pair of this memory is from {source!r}; it holds {describe_sources(others)}. If the source continues "
            "one of these, give that name: --as NAME. If it is another source, give a new name"
        )


class Fill:
    """One run: its options, and the source, which is opened before anything is created."""

    def __init__(
        self,
        source: str,
        flags: Any,
        given: Given,  # of ``IngestOptions`` and ``Cluster``
        *,
        named: bool = False,  # whether to store the name of the source with the pairs
        existing: bool = False,  # whether the memory must exist
        only_known: bool = False,  # whether to skip rows with an unknown id
    ) -> None:
        self.flags = flags
        self.cluster = _cluster_of(flags.engine, given)
        self.settings: Settings = flags.existing if existing else flags.settings
        if existing and is_server(self.settings):
            memory_of(self.settings, None, create=False).close()
        self.rows = open_source(source, model=self.settings.model)
        if self.rows.note:
            typer.echo(f"note: {self.rows.note}", err=True)
        if named:
            given = {"source": source_name(self.rows)} | given
        if flags.corrections is not None:
            self.rows, notes = correct(self.rows, flags.corrections)
            for note in notes:
                typer.echo(f"note: {note}", err=True)
        self.options = IngestOptions(**{"rejected": self._rejected_path(), **given}, only_known=only_known)

    def _rejected_path(self) -> Path:
        """The list of rejected rows: named after the memory's folder, or after its collection in the working folder."""
        memory = self.settings.memory
        served = is_server(self.settings) or memory == ":memory:"
        place = Path(self.settings.memory_collection) if served else in_home(memory)
        if not place.name.strip("."):  # ``.`` or ``..``
            place = place.resolve()
        return place.with_name(f"{place.name}.rejected.jsonl")

    def do(self, what: str, check: Callable[[Reco], object] | None = None, **more: Any) -> None:
        """Run, or only count with --dry-run, and print the outcome; ``check`` may refuse the memory first."""
        exists = not self.flags.dry_run or is_server(self.settings) or in_home(self.settings.memory).exists()
        place = self.settings if exists else self.settings.model_copy(update={"memory": ":memory:"})
        with reco_here_or_served(place) as reco:
            if check is not None:
                check(reco)
            outcome = self.run(reco, what, dry_run=self.flags.dry_run, **more)
        result = outcome.to_dict() | ({"dry_run": True} if self.flags.dry_run else {})
        del result["seconds"]
        say(result, "\n".join(lines(outcome, dry_run=self.flags.dry_run)), self.flags.as_json)

    def run(self, reco: Reco, what: str, *, dry_run: bool, **more: Any) -> Outcome:
        """Fill the memory with a progress bar, and allow the playground to show the image files."""
        from ..ingest.fill import ingest
        from ..ingest.near import excluded_images
        from ..progress import progress_bar
        from ..sources.images import allow_folders

        location = reco.memory.store.location
        kept = f"what was written stays in {location}; the same command resumes from there"
        with (
            keeps("nothing was written" if dry_run else kept),
            progress_bar(total=self.rows.total, desc="look" if dry_run else what, unit="row") as bar,
        ):

            def advance(read: int, rejected: int) -> None:
                bar.set_postfix(rejected=rejected, refresh=False)
                bar.update(read)

            if not dry_run:
                allow_folders(location, self.rows.folders)
                more["excluded"] = excluded_images(
                    self.flags.exclude or (), reco, allow_private=self.options.allow_private_urls
                )
            more |= {"cluster": self.cluster, "progress": advance, "dry_run": dry_run}
            outcome = ingest(self.rows, reco, self.options, **more)
        if not dry_run and reco.memory.store.kind != "served":
            outcome.plain = why_plain(reco.memory.store.header, outcome.pairs)
        return outcome


def lines(outcome: Outcome, *, dry_run: bool = False) -> Iterator[str]:
    """Format an outcome: why queries stay plain, counts that are not zero, the most frequent reasons, and files."""
    from ..ingest.fill import describe_sources

    counts = [
        (outcome.replaced, "replaced"),
        (outcome.unchanged, "unchanged"),
        (outcome.repeated, "repeated"),
        (outcome.missing, "not in the memory"),
        (outcome.excluded, "excluded"),
        (0 if outcome.refused else outcome.deleted, "deleted"),
        (outcome.rejected, "rejected"),
    ]
    yield from filter(None, [outcome.plain])
    added = f"{'would add' if dry_run else 'added'} {counted(outcome.added, 'pair')}"
    others = "".join(f", {count:,} {what}" for count, what in counts if count)
    yield f"{added}{others}; the memory holds {outcome.pairs:,}"
    if outcome.refused:
        yield f"would fail: {outcome.refused}"
    if outcome.others:
        copied = counted(outcome.copied, "pair")
        yield f"copied {copied} from the previous version: {describe_sources(outcome.others)}"
    if outcome.cut:
        longer = counted(outcome.cut, "caption is", "captions are")
        yield f"{longer} longer than the encoder reads; what is beyond is cut"
    if outcome.kept:
        yield (
            f"{counted(outcome.kept, 'pair is', 'pairs are')} gone from the source but still here, because rejected "
            "rows without an id may be theirs: fix those rows and sync again"
        )
    yield from filter(None, [outcome.vectors])
    yield from (f"  {times:,} x {on_one_line(reason)}" for reason, times in list(outcome.reasons.items())[:5])
    yield from (f"listed in {path}" for path in outcome.files.values())


def _cluster_of(engine: Literal["local", "ray"], given: Given) -> Cluster | None:
    """The Ray cluster of the flags; None: this process encodes."""
    cluster = take_flags(Cluster, given)
    if engine == "ray":
        from ..ingest import ray_engine  # noqa: F401 - raises MissingExtra

        return cluster
    for name, value in vars(cluster).items():
        if value is not None:
            raise ConfigError(f"--{name} {value} is about a Ray cluster: give --engine ray, too")
    return None


def _build_version(fill: Fill, flags: _Build) -> None:
    from ..ingest.fill import VersionBuild
    from .memory_versions import describe, open_versions_of

    settings = fill.settings
    fingerprint = load_model(settings.model).manifest.fingerprint
    again = "the same command with --resume" if is_server(settings) else "the same command"
    with (
        keeps(f"what was written stays beside the version in use; {again} continues"),
        explained_lock(settings),
        closing(open_versions_of(settings)) as versions,
    ):

        def write(name: str, finish: Callable[[Writer], object]) -> Outcome:
            folder = versions.folder(name) if isinstance(versions, FolderVersions) else None
            place = {"memory_collection": name} if folder is None else {"memory": str(folder)}
            with reco_of(settings, on_memory_failure="fail", **place) as reco:
                return fill.run(reco, "build", dry_run=False, finish=finish)

        @contextmanager
        def replaced(version: Version) -> Iterator[Memory]:
            place = {"memory_collection": version.name}
            if isinstance(versions, FolderVersions):
                name = version.name if version.number else version_name(version.name, 1)  # renamed by the swap
                place = {"memory": str(versions.folder(name))}
            with closing(memory_of(settings.model_copy(update=place), None, create=False)) as store:
                yield store

        build = VersionBuild(
            versions,
            fingerprint,
            fill.options,
            write,
            lambda: closing(open_here_or_served(settings, None)),
            replaced,
            flags.swap,
            flags.drop_others,
            flags.resume or not is_server(settings),
        )
        version, outcome = build.run()
    use = f"reco memory versions --use {version.name} --memory {settings.memory}"
    state = "is in use" if version.live else f"is ready: {use}"
    late = [f"carried over changes of others: {counted(build.late, 'pair')}"] if build.late else []
    text = [*lines(outcome), f"{version.name} holds {counted(outcome.pairs, 'pair')} and {state}", *late]
    say({**outcome.to_dict(), **describe(version), "late": build.late}, "\n".join(text), flags.as_json)


def _relearn(flags: _Build) -> None:
    """Learn again from all pairs; until the end, searches use the old state."""
    from ..learning.learn import learn, steps_of
    from ..progress import progress_bar
    from ..signals import LEARNED

    settings = flags.existing
    manifest = load_model(settings.model).manifest
    with (
        explained_lock(settings),
        closing(memory_of(settings, manifest.fingerprint, create=False)) as store,
        keeps("the memory keeps what it learned before"),
        progress_bar(total=steps_of(store.count()), desc="learn", unit="step") as bar,
    ):
        learn(store, settings.refining.get("k") or manifest.policy.k, extras=LEARNED, progress=bar.update)
        pairs, header = store.count(), store.header
    text = [*filter(None, [why_plain(header, pairs)]), *calibration_lines(header, pairs)]
    say({"pairs": pairs, "learned": bool(header.calibration)}, "\n".join(text), flags.as_json)
