"""Versions of a memory, in use and before, and what a running service does with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from ..artifact import Artifact
from ..config import Settings
from ..errors import ConfigError, MemoryStoreError, MemoryTimeout
from ..memory.versions import FolderVersions, Version, Versions
from ..types import Pair
from ..values import counted
from .service import ServiceOptions, served_memory
from .shared import (
    Given,
    JsonOption,
    MemoryFlags,
    OpenOptions,
    keeps,
    open_server,
    reco_of,
    say,
    spell,
    take_flags,
    takes,
)

if TYPE_CHECKING:
    from ..client.memory import ServedMemory

_PATIENCE = 20
"""Deadlines of the service that putting a version to use may take: a large one opens slowly."""


@takes(MemoryFlags)
def versions_command(*, given: Given, as_json: JsonOption = False) -> None:
    """List the versions of the memory. Needs no model."""
    with closing(_versions(given)) as versions:
        found = versions.all()
    lines = [
        f"{'*' if each.live else ' '} {each.name}  {_pairs(each)} of {each.fingerprint}"
        + ("" if each.finished else "  unfinished")
        for each in found
    ]
    say([describe(each) for each in found], "\n".join(lines) or "no versions", as_json)


@takes(MemoryFlags)
def use_command(
    name: Annotated[str, typer.Argument(help="Name of a version.")], *, given: Given, as_json: JsonOption = False
) -> None:
    """Put a finished version to use, atomically, without interrupting readers. Needs no model."""
    _say_used(_use(take_flags(MemoryFlags, given), lambda versions: versions.use(name)), as_json)


@takes(MemoryFlags)
def rollback_command(*, given: Given, as_json: JsonOption = False) -> None:
    """Go back to the version before the one in use. Needs no model."""
    _say_used(_use(take_flags(MemoryFlags, given), lambda versions: versions.rollback()), as_json)


@takes(MemoryFlags)
def prune_command(
    *,
    given: Given,
    keep: Annotated[int, typer.Option(min=0, help="Finished versions to keep besides the one in use.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Delete versions that are not in use, except the newest finished ones. Needs no model."""
    with closing(_versions(given)) as versions:
        gone = versions.prune(keep)
    say({"deleted": gone}, f"deleted {', '.join(gone)}" if gone else "nothing to delete", as_json)


def _use(asked: MemoryFlags, change: Callable[[Versions], Version]) -> Version:
    """Put another version to use, with what people said of the one before; a service brings that over itself."""
    from ..opinions import bring_over

    with closing(open_versions_of(asked.settings)) as versions:
        before = next((each for each in versions.all() if each.live), None)
        known = None if before is None else versions.header_of(before)
        version = change(versions)
        served = isinstance(versions, ServedFolderVersions)
    if before is not None and known is not None and known.said and version.name != before.name and not served:
        left = f"{version.name} is in use, without what people said of {before.name}"
        with keeps(left), closing(asked.open()) as store:
            bring_over(known, store)
    return version


def _versions(given: Given) -> Versions:
    return open_versions_of(take_flags(MemoryFlags, given).settings)


def is_server(settings: Settings) -> bool:
    """Whether the memory is on a Qdrant server."""
    return "://" in settings.memory


def open_versions_of(settings: Settings, via: ServiceOptions | None = None) -> Versions:
    """The versions of the memory of the settings; of a folder that a service has open, the service swaps them."""
    if not is_server(settings):
        served = served_memory(settings, via or ServiceOptions(), None)
        return FolderVersions(settings.memory) if served is None else ServedFolderVersions(settings.memory, served)
    server = open_server(settings)
    from ..memory.server_versions import ServerVersions

    return ServerVersions(server, settings.memory_collection)


class ServedFolderVersions(FolderVersions):
    """Versions of a folder that a service has open, and puts to use itself."""

    def __init__(self, place: str, memory: ServedMemory) -> None:
        super().__init__(place)
        self._memory = memory

    def check_swap(self) -> None:
        """Nothing to check: the service closes the version before."""

    def close(self) -> None:
        """Close the connections."""
        self._memory.close()

    def _swap(self, wanted: Version, versions: Sequence[Version]) -> Version:
        for tried in range(_PATIENCE):
            try:
                pairs = self._memory.use(wanted.name)
                break
            except MemoryTimeout:  # it goes on meanwhile, and to ask again is no harm
                if tried == _PATIENCE - 1:
                    raise
        return replace(wanted, pairs=pairs, live=True)


def describe(version: Version) -> dict[str, object]:
    """A version, JSON-like."""
    return {
        "name": version.name,
        "pairs": version.pairs,
        "live": version.live,
        "finished": version.finished,
        "encoder": version.fingerprint.name,
    }


def _say_used(version: Version, as_json: bool) -> None:
    say(describe(version), f"{version.name} is in use: {_pairs(version)}", as_json)


def _pairs(version: Version) -> str:
    return "open elsewhere, holds pairs" if version.pairs is None else counted(version.pairs, "pair")


@takes(OpenOptions)
def attach_command(
    *,
    given: Given,
    image_vector: Annotated[str, typer.Option(help="Name of its image vector.")] = "image",
    text_vector: Annotated[str, typer.Option(help="Name of its text vector.")] = "text",
    caption: Annotated[
        str | None, typer.Option(metavar="FIELD", help="Payload field of the captions, to check the encoder with some.")
    ] = None,
    writable: Annotated[bool, typer.Option("--writable", help="Let pairs be added and removed, too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Use an existing collection, with vectors of the model's encoder, as a memory. Changes only its metadata.

    Then run `reco memory calibrate`, without which nothing is refined; with --writable, it adds three numbers to the
    payload of each point.
    """
    asked = take_flags(OpenOptions, given)
    settings = asked.settings
    model = asked.model or settings.model
    fingerprint = Artifact.load(model).manifest.fingerprint
    server = open_server(settings)
    from ..ingest.source import check_captions
    from ..memory.layout import Layout
    from ..memory.reading import attach, describe

    layout = Layout(image_vector, text_vector, attached=True, writable=writable)
    if caption is not None:
        check_captions(server, describe(server, settings.memory_collection), text_vector, caption, model)
    attached = attach(server, settings.memory_collection, fingerprint, layout)
    say(
        {"collection": settings.memory_collection, "points": attached.points, "pairs": attached.pairs},
        f"attached {settings.memory_collection!r} as a memory of {fingerprint}: {attached.pairs:,} of its "
        f"{attached.points:,} points have both vectors. Now learn from them: reco memory calibrate "
        f"{spell(settings)}",
        as_json,
    )


@takes(OpenOptions)
def adopt_command(
    *,
    into: Annotated[str, typer.Option(help="Memory to fill: a folder, or the URL of a Qdrant server.")],
    caption: Annotated[str, typer.Option(metavar="FIELD", help="Payload field that holds the captions.")],
    image_vector: Annotated[str, typer.Option(help="Name of the image vector; '' for the one without a name.")] = "",
    given: Given,
    into_collection: Annotated[
        str | None, typer.Option(help="Collection to fill.", show_default="RECO_MEMORY_COLLECTION or reco")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Leave out pairs whose ids are there already.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Copy a collection's image vectors into a memory of their own, and embed its captions. The source stays as it is.

    The image vectors must be of the model's encoder, which nothing in the collection shows. `reco memory build` reads
    collections, too, and lists the points that cannot be used, which are left out here.
    """
    asked = take_flags(OpenOptions, given)
    source = MemoryFlags(asked.memory, asked.collection).settings
    target = MemoryFlags(into, into_collection, asked.option).settings
    if (source.memory, source.memory_collection) == (target.memory, target.memory_collection):
        raise ConfigError(f"--into names the collection that is read, {source.memory_collection!r}: name another one")
    server = open_server(source)
    from ..ingest.source import CollectionNames, collection_rows
    from ..memory.reading import describe
    from ..memory.transfer import lacking_pairs

    found = describe(server, source.memory_collection)
    rows = collection_rows(server, found, CollectionNames(image_vector, caption=caption), None, scaled=True)
    if not any(isinstance(row, Pair) for row in rows):
        raise MemoryStoreError(f"no point of {rows.name} has a vector and a text in {caption!r}: nothing to copy")
    pairs = (row for row in rows if isinstance(row, Pair))
    with reco_of(asked.model, target, on_memory_failure="fail") as reco:
        wanted = lacking_pairs(pairs, reco.memory.store) if resume else pairs
        added = reco.memory.add(wanted, progress=True)
        held = len(reco.memory)
    say({"added": added, "pairs": held}, f"added {counted(added, 'pair')}; {into} holds {held:,}", as_json)
