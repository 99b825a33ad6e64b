"""What the commands that fill a memory have in common: their options, progress, and how the outcome is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..defaults import SAME_IMAGE
from .errors import keeps
from .options import memory_location
from .stores import say

if TYPE_CHECKING:
    from ..config import Settings
    from ..data.rows import Rows
    from ..ingest import IngestOptions, Outcome
    from ..ingest.outcome import Plan
    from ..ingest.ray_engine import Cluster
    from ..reco import Reco

SourceArgument = Annotated[
    str,
    typer.Argument(
        help="A .csv/.tsv/.jsonl/.parquet of paths, bytes or URLs, a folder of images with .txt captions, .tar shards, "
        "vectors (.npz, .parquet), or another memory: its folder, or 'URL?collection=NAME' of a Qdrant server. See "
        "docs/sources.md."
    ),
]
BatchOption = Annotated[int, typer.Option(min=1, help="Pairs that are encoded and written together.")]
RejectedOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="List of the rows that cannot be used, with reasons.",
        show_default="MEMORY.rejected.jsonl",
    ),
]
ErrorRateOption = Annotated[
    float,
    typer.Option(
        "--max-error-rate", min=0, max=1, help="Stop when a larger share is rejected, after 200 rows and at the end."
    ),
]
DuplicatesOption = Annotated[
    Literal["off", "report", "drop", "merge"] | None,
    typer.Option(
        help="Near-duplicate images: report lists them in MEMORY.duplicates.jsonl, drop leaves the later one out, "
        "merge gives its caption to the earlier one. Each image is searched for: slow in a large memory.",
        show_default="off; report when a threshold is given",
    ),
]
ThresholdOption = Annotated[
    float | None,
    typer.Option(
        "--duplicate-threshold",
        min=0,
        max=1,
        help="Cosine from which on two images are the same, also for --exclude.",
        show_default=f"{SAME_IMAGE}",
    ),
]
ExcludeOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SOURCE", help="Keep these images, such as those of an evaluation, out of the memory; repeat it."
    ),
]
NameOption = Annotated[
    str | None, typer.Option("--as", metavar="NAME", help="Name of the source, for `sync`.", show_default="as given")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Only say what would happen. Images are not decoded, nothing is written.")
]


def options_of(place: Path, **given: Any) -> IngestOptions:
    """The options of a run; what is None counts as not given.

    Args:
        place: what the lists are named after.
        given: options by name.
    """
    from ..ingest import IngestOptions

    said = {name: value for name, value in given.items() if value is not None}
    if "threshold" in said:
        said.setdefault("duplicates", "report")
    lists = {"rejected": "rejected", "listed": "duplicates"}
    beside = {name: place.with_name(f"{place.name}.{what}.jsonl") for name, what in lists.items()}
    return IngestOptions(**{**beside, **said})


def rows_of(source: str, model: Path | None, settings: Settings) -> Rows:
    """A source, opened before anything is made for one that cannot be used.

    Args:
        source: as the user wrote it.
        model: folder of the model; None leaves it to the settings.
        settings: speak of the memory that it will fill.

    Raises:
        ConfigError: it is that memory, or has an option that it does not know.
        FingerprintMismatch: it is a memory of another encoder.
        DataError, MemoryStoreError: it cannot be read.
    """
    from ..ingest.source import open_source

    return open_source(source, model=model or settings.model, into=settings)


def lists_beside(memory: str | None, collection: str | None = None) -> Path:
    """What lists are named after: the memory's folder, or its collection in the working folder."""
    from ..config import load_settings

    location = memory_location(memory)
    if "://" in location or location == ":memory:":
        return Path(load_settings(memory_collection=collection).memory_collection)
    return Path(location).expanduser()


@contextmanager
def progress_of(rows: Rows, what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr with rate, time left and rejected rows; yields what advances it."""
    from ..progress import progress_bar

    with progress_bar(total=rows.total, desc=what, unit="row") as bar:

        def advance(read: int, rejected: int) -> None:
            bar.set_postfix(rejected=rejected, refresh=False)
            bar.update(read)

        yield advance


def planned(
    rows: Rows,
    memory: str | None,
    model: Path | None,
    options: IngestOptions,
    *,
    max_delete: float | None = None,
    **settings: Any,
) -> Plan:
    """What a run would do to the memory as it is; where there is none, to an empty one."""
    from ..ingest.plan import plan
    from ..reco import Reco

    location, missing = memory_location(memory), {"memory_kind": "exact"}
    there = "://" in location or Path(location).expanduser().exists()
    said = {"memory": location, **settings} if there else {"memory": ":memory:", **missing}
    with (
        keeps("nothing was written"),
        Reco.open(model, on_memory_failure="fail", **said) as reco,
        progress_of(rows, "look") as progress,
    ):
        return plan(rows, reco.memory.store, options, max_delete=max_delete, progress=progress)


def run(
    rows: Rows,
    reco: Reco,
    options: IngestOptions,
    what: str,
    *,
    exclude: list[str] | None = None,
    cluster: Cluster | None = None,
    **more: Any,
) -> Outcome:
    """One run with its bar, in this process or on a cluster; the playground may show the pictures that are read."""
    from ..ingest import ingest
    from ..ingest.exclude import excluded_images
    from ..memory.picture_folders import note_folders

    with (
        keeps(f"what was written stays in {reco.memory.store.location}; the same command goes on from there"),
        progress_of(rows, what) as progress,
    ):
        note_folders(reco.memory.store.location, rows.folders)
        excluded = excluded_images(exclude or (), reco)
        if cluster is None:
            return ingest(rows, reco, options, excluded=excluded, progress=progress, **more)
        from ..ingest.ray_engine import ingest_on_ray

        return ingest_on_ray(rows, reco, cluster, options, excluded=excluded, progress=progress, **more)


def tell(outcome: Outcome, *, as_json: bool) -> None:
    """Print what a run came to, or would."""
    told = outcome.to_dict()
    del told["seconds"]
    say({**told, **({"dry_run": True} if _plan_in(outcome) else {})}, "\n".join(lines(outcome)), as_json)


def lines(outcome: Outcome) -> Iterator[str]:
    """The same as text: counts that are not zero, then where lists are and the most frequent reasons."""
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
    if outcome.cut:
        yield f"{outcome.cut:,} captions are longer than the encoder reads, and were cut"
    if outcome.kept:
        yield (
            f"{outcome.kept:,} pairs are gone from the source and stayed, because rejected rows without an id may be "
            "theirs: mend those rows and sync again"
        )
    for reason, times in list(outcome.reasons.items())[:5]:
        yield f"  {times:,} x {reason}"
    for path in outcome.files.values():
        yield f"listed in {path}"


def _plan_in(outcome: Outcome) -> Plan | None:
    from ..ingest.outcome import Plan

    return outcome if isinstance(outcome, Plan) else None
