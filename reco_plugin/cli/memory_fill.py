"""``reco memory add, update, sync, remove``: daily changes."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..defaults import INGEST_BATCH
from .engine import takes_cluster
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
    lists_beside,
    options_of,
    planned,
    rows_of,
    run,
    tell,
)
from .options import JsonOption, MemoryOption, ModelOption, existing_memory, memory_location
from .stores import OptionOption, memory_settings, open_store, parse_options, say

if TYPE_CHECKING:
    from ..config import Settings
    from ..ingest.ray_engine import Cluster


@takes_cluster
def add_command(
    source: SourceArgument,
    *,
    model: ModelOption = None,
    memory: MemoryOption = None,
    batch_size: BatchOption = INGEST_BATCH,
    rejected: RejectedOption = None,
    max_error_rate: ErrorRateOption = 0.1,
    duplicates: DuplicatesOption = None,
    duplicate_threshold: ThresholdOption = None,
    exclude: ExcludeOption = None,
    cluster: Cluster | None,
    option: OptionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Encode pairs and store them; an id that exists is replaced where its row changed, so run it again to go on."""
    from ..reco import Reco

    rows = rows_of(source, model, memory_settings(memory, None, option))
    options = options_of(
        lists_beside(memory),
        batch_size=batch_size,
        rejected=rejected,
        max_error_rate=max_error_rate,
        duplicates=duplicates,
        threshold=duplicate_threshold,
    )
    asked = parse_options(option)  # before anything is encoded
    with Reco.open(model, memory_location(memory), memory_options=asked, on_memory_failure="fail") as reco:
        outcome = run(rows, reco, options, "add", exclude=exclude, cluster=cluster)
    tell(outcome, as_json=as_json)


@takes_cluster
def update_command(
    source: SourceArgument,
    *,
    model: ModelOption = None,
    memory: MemoryOption = None,
    batch_size: BatchOption = INGEST_BATCH,
    rejected: RejectedOption = None,
    max_error_rate: ErrorRateOption = 0.1,
    cluster: Cluster | None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Replace pairs whose rows changed; rows whose id the memory does not hold are counted and left out."""
    from ..reco import Reco

    location = existing_memory(memory)
    rows = rows_of(source, model, memory_settings(memory))
    given: dict[str, Any] = {"batch_size": batch_size, "rejected": rejected, "max_error_rate": max_error_rate}
    options = options_of(lists_beside(memory), only_known=True, **given)
    if dry_run:
        tell(planned(rows, memory, model, options), as_json=as_json)
        return
    with Reco.open(model, location, on_memory_failure="fail") as reco:
        outcome = run(rows, reco, options, "update", cluster=cluster)
    tell(outcome, as_json=as_json)


@takes_cluster
def sync_command(
    source: SourceArgument,
    *,
    model: ModelOption = None,
    memory: MemoryOption = None,
    name: NameOption = None,
    max_delete: Annotated[
        float, typer.Option(min=0, max=1, help="Delete nothing where a larger share of the source's pairs would go.")
    ] = 0.2,
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
    """Make the memory hold what the source holds: add, replace, and delete what it brought before and lacks now.

    Only pairs that `build` or `sync` brought from a source of the same name are ever deleted.
    """
    from ..ingest.sync import delete_gone
    from ..reco import Reco

    rows = rows_of(source, model, memory_settings(memory, None, option))
    named = name or rows.name
    options = options_of(
        lists_beside(memory),
        source=named,
        batch_size=batch_size,
        rejected=rejected,
        max_error_rate=max_error_rate,
        duplicates=duplicates,
        threshold=duplicate_threshold,
    )
    if dry_run:
        tell(planned(rows, memory, model, options, max_delete=max_delete), as_json=as_json)
        return
    asked = parse_options(option)
    with Reco.open(model, memory_location(memory), memory_options=asked, on_memory_failure="fail") as reco:
        finish = partial(delete_gone, source=named, max_share=max_delete)
        outcome = run(rows, reco, options, "sync", exclude=exclude, cluster=cluster, finish=finish)
    tell(outcome, as_json=as_json)


def remove_command(
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of the pairs.")] = None,
    *,
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="FILE", help="Also the ids in a .txt, one a line, or those of a source's rows."),
    ] = None,
    memory: MemoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete pairs by id; ids that are not there are no error. Needs no model."""
    from ..errors import InputError

    if not ids and source is None:
        raise InputError("nothing to remove: give ids, or --from a file of them")
    wanted = [*(ids or []), *(_ids_in(source, memory_settings(memory)) if source else [])]
    with closing(open_store(memory)) as store:
        removed, left = store.delete(wanted), store.count()
    say({"removed": removed, "pairs": left}, f"removed {removed:,} pairs; {left:,} are left", as_json)


def _ids_in(source: str, settings: Settings) -> list[str]:
    """Ids of a list, or of a source: also of rows that are rejected, as far as they have one.

    Raises:
        ConfigError: it is the memory that they are removed from.
        DataError, MemoryStoreError: it cannot be read.
    """
    from ..data.files import read_lines
    from ..ingest.source import open_source

    if (path := Path(source)).suffix.lower() == ".txt":
        return read_lines(path)
    return [row.id for row in open_source(source, into=settings) if row.id is not None]
