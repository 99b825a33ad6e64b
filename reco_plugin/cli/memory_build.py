"""``reco memory build``: a memory from a source, in place or as a version beside the one in use."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer

from ..ingest.options import Cluster, IngestOptions
from .errors import keeps
from .flags import Given, takes
from .ingesting import Fill, FillOptions, SourceArgument, lines
from .memory_versions import describe, is_server, open_versions_of
from .stores import say


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
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait until a server has indexed it.")] = 3600,
) -> None:
    """Build a memory from a source; an interrupted build resumes when run again.

    A folder is filled in place: rows are added or replaced, nothing is deleted. With --swap, and always on a server, a
    new version is built beside the one in use; the old one stays for `rollback`.
    """
    fill = Fill(origin, given, named=True)
    served = is_server(fill.settings)
    if (swap or served) and not fill.asked.dry_run:
        _build_version(fill, fresh=served and not resume, swap=swap, wait=wait)
    else:
        fill.do("build")


def _build_version(fill: Fill, *, fresh: bool, swap: bool, wait: float) -> None:
    from ..artifact import Artifact
    from ..ingest.sync import delete_others
    from ..memory.folder_versions import FolderVersions

    settings = fill.settings
    fingerprint = Artifact.load(settings.model if fill.asked.model is None else fill.asked.model).manifest.fingerprint
    again = "the same command with --resume" if is_server(settings) else "the same command"
    with (
        keeps(f"what was written stays beside the version in use; {again} continues"),
        closing(open_versions_of(settings)) as versions,
    ):
        begun = None if fresh else versions.find_unfinished(fingerprint)
        name = begun or versions.begin(fingerprint)
        place = {"memory_collection": name} if is_server(settings) else {}
        where = str(versions.folder(name)) if isinstance(versions, FolderVersions) else settings.memory
        with fill.open_reco(memory=where, **place) as reco:
            outcome = fill.run(reco, "build", finish=delete_others)
        version = versions.finish(name, outcome.held, fingerprint, wait_s=wait)
        if swap:
            version = versions.use(name)
    used = "is in use" if swap else f"is ready: reco memory use {name}"
    text = "\n".join([*lines(outcome), f"{name} holds {outcome.pairs:,} pairs and {used}"])
    say({**outcome.to_dict(), **describe(version)}, text, fill.asked.as_json)
