"""``reco memory build``: a memory from a source, in place or as a version beside the one in use."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..defaults import INGEST_BATCH
from .engine import takes_cluster
from .errors import keeps
from .ingesting import (
    BatchOption,
    DryRunOption,
    DuplicatesOption,
    ErrorRateOption,
    ExcludeOption,
    NameOption,
    RejectedOption,
    SourceArgument,
    ThresholdOption,
    lines,
    lists_beside,
    options_of,
    planned,
    rows_of,
    run,
    tell,
)
from .memory_versions import describe, is_server, open_versions_of
from .options import JsonOption, MemoryOption, ModelOption
from .stores import CollectionOption, OptionOption, memory_settings, parse_options, say

if TYPE_CHECKING:
    from ..config import Settings
    from ..data.rows import Rows
    from ..ingest import IngestOptions
    from ..ingest.ray_engine import Cluster


@takes_cluster
def build_command(
    source: SourceArgument,
    *,
    model: ModelOption = None,
    memory: MemoryOption = None,
    collection: CollectionOption = None,
    swap: Annotated[
        bool,
        typer.Option("--swap", help="Build a version that holds exactly the source, and put it to use atomically."),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="On a server: go on with the newest unfinished version. A folder always does."),
    ] = False,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait until a server has indexed it.")] = 3600,
    name: NameOption = None,
    batch_size: BatchOption = INGEST_BATCH,
    rejected: RejectedOption = None,
    max_error_rate: ErrorRateOption = 0.1,
    duplicates: DuplicatesOption = None,
    duplicate_threshold: ThresholdOption = None,
    exclude: ExcludeOption = None,
    cluster: Cluster | None,
    option: OptionOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Build a memory from a source; what was interrupted goes on when it is run again.

    A folder is filled in place: rows are added or replaced, nothing else is deleted. With --swap, and on a server
    always, a new version is built beside the one in use; the old one stays for `rollback`.
    """
    settings = memory_settings(memory, collection, option)
    rows = rows_of(source, model, settings)
    options = options_of(
        lists_beside(memory, collection),
        source=name or rows.name,
        batch_size=batch_size,
        rejected=rejected,
        max_error_rate=max_error_rate,
        duplicates=duplicates,
        threshold=duplicate_threshold,
    )
    said: dict[str, Any] = {"memory_options": parse_options(option)}
    if dry_run:
        tell(planned(rows, memory, model, options, memory_collection=collection, **said), as_json=as_json)
    elif swap or is_server(settings):
        fresh = is_server(settings) and not resume
        _build_version(
            rows, settings, options, model, said, exclude, cluster, fresh=fresh, swap=swap, wait=wait, as_json=as_json
        )
    else:
        from ..reco import Reco

        with Reco.open(model, settings.memory, on_memory_failure="fail", **said) as reco:
            outcome = run(rows, reco, options, "build", exclude=exclude, cluster=cluster)
        tell(outcome, as_json=as_json)


def _build_version(
    rows: Rows,
    settings: Settings,
    options: IngestOptions,
    model: Path | None,
    said: dict[str, Any],
    exclude: list[str] | None,
    cluster: Cluster | None,
    *,
    fresh: bool,
    swap: bool,
    wait: float,
    as_json: bool,
) -> None:
    from ..artifact import Artifact
    from ..ingest.sync import delete_others
    from ..memory.folder_versions import FolderVersions
    from ..reco import Reco

    fingerprint = Artifact.load(model or settings.model).manifest.fingerprint
    again = "the same command with --resume" if is_server(settings) else "the same command"
    with (
        keeps(f"what was written stays beside the version in use; {again} goes on"),
        closing(open_versions_of(settings)) as versions,
    ):
        begun = None if fresh else versions.unfinished(fingerprint)
        name = begun or versions.begin(fingerprint)
        place = name if is_server(settings) else None
        where = str(versions.folder(name)) if isinstance(versions, FolderVersions) else settings.memory
        with Reco.open(model, where, memory_collection=place, on_memory_failure="fail", **said) as reco:
            outcome = run(rows, reco, options, "build", exclude=exclude, cluster=cluster, finish=delete_others)
        version = versions.finish(name, outcome.held, fingerprint, wait_s=wait)
        if swap:
            version = versions.use(name)
    used = "is in use" if swap else f"is ready: reco memory use {name}"
    told = "\n".join([*lines(outcome), f"{name} holds {outcome.pairs:,} pairs and {used}"])
    say({**outcome.to_dict(), **describe(version)}, told, as_json)
