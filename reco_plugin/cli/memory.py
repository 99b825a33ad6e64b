"""``reco memory``: fill, search and inspect the memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ..types import Modality
from .errors import reports_errors
from .memory_build import build_command
from .memory_calibrate import calibrate_command, shown_trust, trust_line
from .memory_fill import add_command, remove_command, sync_command, update_command
from .memory_move import copy_command, export_command, import_command, rescue_command
from .memory_served import adopt_command, attach_command
from .memory_versions import prune_command, rollback_command, use_command, versions_command
from .options import JsonOption, MemoryOption, ModelOption, existing_memory
from .stores import open_store, say

if TYPE_CHECKING:
    from ..memory.edge import EdgeMemory

memory_app = typer.Typer(
    no_args_is_help=True, help="Fill, look up, search and move image-text pairs; build versions and swap them."
)


@memory_app.command("info", epilog="Example: reco memory info --memory ./memory --json")
@reports_errors
def info_command(*, memory: MemoryOption = None, as_json: JsonOption = False) -> None:
    """Show engine, number of pairs, their encoder, and what was learned about them. Needs no model.

    The gains are those of the memory's own pairs, held out: right in sign, not in size, and blind to a memory that has
    nothing to do with the queries.
    """
    store = open_store(memory)
    try:
        header, count = store.header, store.count()
        index = cast("EdgeMemory", store).index_state if store.kind == "edge" else None
    finally:
        store.close()
    fingerprint = header.fingerprint
    info = {
        "kind": store.kind,
        "location": store.location,
        "pairs": count,
        "encoder": {"name": fingerprint.name, "digest": fingerprint.digest, "dimension": fingerprint.dimension},
        "trust": shown_trust(header.trust),
    }
    lines = [f"{store.kind} memory at {store.location}: {count:,} pairs", f"encoder  {fingerprint}"]
    lines.append(f"trust    {trust_line(header.trust, count)}")
    if index:
        info["index"] = index
        lines.append(
            f"index    {index['state']}: {index['pairs']:,} pairs, {index['written_since']:,} written since, "
            f"{index['bytes'] / 1e6:,.0f} MB"
        )
    say(info, "\n".join(lines), as_json)


@memory_app.command("optimize", epilog="Example: reco memory optimize --memory ./memory")
@reports_errors
def optimize_command(*, memory: MemoryOption = None, as_json: JsonOption = False) -> None:
    """Make the search index of an embedded memory now. Needs no model.

    With FAISS installed (extra `index`) and from 10,000 pairs on, that is the index which searches would otherwise make
    in the background (docs/measurements/search-index.md). Else it is Edge's own: it takes minutes above 100,000 pairs,
    also drops the remains of deleted pairs, makes searches about ten times faster, and misses some neighbours
    (docs/measurements/million.md); pairs that are added later are compared one by one until this runs again.
    """
    from time import monotonic

    from ..errors import ConfigError

    begun, store = monotonic(), open_store(memory)
    try:
        if store.kind != "edge":
            raise ConfigError(
                f"the memory at {store.location!r} is of kind {store.kind}: only edge has an index that is built "
                "by hand. A server builds its own, the others have none"
            )
        edge = cast("EdgeMemory", store)
        edge.optimize()
        pairs, indexed = edge.count(), edge.indexed
    finally:
        store.close()
    seconds = round(monotonic() - begun, 1)
    text = f"indexed {indexed:,} of {pairs:,} pairs in {seconds:g} s"
    if not indexed:
        text = f"{pairs:,} pairs are too few for an index: searches compare with each of them"
    say({"pairs": pairs, "indexed": indexed, "seconds": seconds}, text, as_json)


@memory_app.command(
    "search",
    epilog="Example: reco memory search 'a red fox' --k 5"
    '\n\nreco memory search --image fox.jpg --where \'{"shop": "de"}\'',
)
@reports_errors
def search_command(
    text: Annotated[str | None, typer.Argument(help="A text to search by.")] = None,
    *,
    image: Annotated[Path | None, typer.Option(help="An image to search by instead.")] = None,
    by: Annotated[
        Modality | None, typer.Option(help="Modality of the memory to compare with.", show_default="the query's own")
    ] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="Number of pairs.")] = 10,
    where: Annotated[str | None, typer.Option(metavar="JSON", help="Conditions on the payload.")] = None,
    model: ModelOption = None,
    memory: MemoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find the pairs nearest to a text or an image, as a query would retrieve them."""
    from ..errors import InputError
    from ..reco import Reco

    if (text is None) == (image is None):
        raise InputError("give a text or --image, one of them")
    conditions = _parse_where(where)
    with Reco.open(model, existing_memory(memory), on_memory_failure="fail") as reco:
        query, modality = (text, "text") if image is None else (image, "image")
        found = reco.memory.search(query, modality=modality, by=by, k=k, where=conditions)  # type: ignore[arg-type]
    payloads = (found.payloads or [[]])[0]
    hits = [
        {"id": id_, "similarity": round(float(similarity), 6), "payload": dict(payload)}
        for id_, similarity, payload in zip(found.ids[0], found.similarity[0], payloads, strict=False)
    ]
    shown = [f"{h['similarity']:.3f}  {h['id']}  {json.dumps(h['payload'], ensure_ascii=False)}" for h in hits]
    say(hits, "\n".join(shown) or "nothing found", as_json)


def _parse_where(text: str | None) -> dict[str, Any] | None:
    from ..errors import InputError

    if text is None:
        return None
    try:
        conditions = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f'--where is no JSON: {error}; write it as \'{{"shop": "de"}}\'') from None
    if not isinstance(conditions, dict):
        raise InputError(f"--where must be a JSON object, got {text!r}")
    return conditions


for _name, _command, _example in (
    (
        "add",
        add_command,
        "reco memory add catalogue.csv --memory ./memory"
        "\n\nA table has the columns id, image and text; every other column becomes payload. See docs/sources.md.",
    ),
    ("update", update_command, "reco memory update changed.csv --memory ./memory"),
    ("sync", sync_command, "reco memory sync catalogue.csv --as catalogue --dry-run"),
    ("remove", remove_command, "reco memory remove fox-1 fox-2 --memory ./memory"),
    ("export", export_command, "reco memory export pairs.parquet --memory ./memory"),
    ("import", import_command, "reco memory import pairs.parquet --memory ./copy"),
    ("copy", copy_command, "reco memory copy grpc://localhost:6334 --memory ./memory"),
    ("rescue", rescue_command, "reco memory rescue ./rescued --memory ./memory"),
    ("build", build_command, "reco memory build catalogue.csv --memory ./memory --swap"),
    ("calibrate", calibrate_command, "reco memory calibrate --memory grpc://localhost:6334 --collection shop"),
    ("versions", versions_command, "reco memory versions --memory ./memory"),
    ("use", use_command, "reco memory use memory--v3 --memory ./memory"),
    ("rollback", rollback_command, "reco memory rollback --memory ./memory"),
    ("prune", prune_command, "reco memory prune --keep 1 --memory ./memory"),
    ("attach", attach_command, "reco memory attach --collection shop --image-vector photo --text-vector title"),
    (
        "adopt",
        adopt_command,
        "reco memory adopt --collection shop --image-vector photo --caption title --into ./memory",
    ),
):
    memory_app.command(_name, epilog=f"Example: {_example}")(reports_errors(_command))
