"""``reco memory``: what refinement retrieves from."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..types import Modality
from .errors import reports_errors
from .options import JsonOption, MemoryOption, ModelOption, existing_memory, memory_location

if TYPE_CHECKING:
    from ..memory import Memory
    from ..types import Records

memory_app = typer.Typer(no_args_is_help=True, help="Add, look up, search, remove, export and import image-text pairs.")


@memory_app.command(
    "add",
    epilog="Example: reco memory add catalogue.csv --memory ./memory"
    "\n\nA table has the columns id, image and text; every other column becomes payload. See docs/evaluation.md.",
)
@reports_errors
def add_command(
    source: Annotated[
        str, typer.Argument(help="A .csv/.tsv/.jsonl, a folder of images with .txt captions, .tar, .npz, .parquet.")
    ],
    *,
    model: ModelOption = None,
    memory: MemoryOption = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs per write.")] = 256,
    as_json: JsonOption = False,
) -> None:
    """Encode pairs and store them; an id that exists is replaced, so running it again is safe."""
    from ..data import read_pairs
    from ..reco import Reco

    pairs = read_pairs(source)  # before a memory is made for a source that is not there
    with Reco.open(model, memory_location(memory)) as reco:
        added = reco.memory.add(pairs, batch_size=batch_size, progress=sys.stderr.isatty())
        _say(
            {"added": added, "pairs": len(reco.memory)},
            f"added {added:,} pairs; the memory holds {len(reco.memory):,}",
            as_json,
        )


@memory_app.command("info", epilog="Example: reco memory info --memory ./memory --json")
@reports_errors
def info_command(*, memory: MemoryOption = None, as_json: JsonOption = False) -> None:
    """Show engine, number of pairs, the encoder that made them, and the gate's calibration. Needs no model."""
    store = open_store(memory)
    try:
        header, count = store.header, store.count()
    finally:
        store.close()
    fingerprint = header.fingerprint
    info = {
        "kind": store.kind,
        "location": store.location,
        "pairs": count,
        "encoder": {"name": fingerprint.name, "digest": fingerprint.digest, "dimension": fingerprint.dimension},
        "calibration": header.calibration,
    }
    lines = [f"{store.kind} memory at {store.location}: {count:,} pairs", f"encoder  {fingerprint}"]
    gate = header.calibration.get("gate")
    lines.append("gate     " + (", ".join(f"{k} {v:.3g}" for k, v in gate.items()) if gate else "not calibrated yet"))
    _say(info, "\n".join(lines), as_json)


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
    """Find the pairs nearest to a text or an image: what a query would retrieve."""
    from ..errors import InputError
    from ..reco import Reco

    if (text is None) == (image is None):
        raise InputError("give a text or --image, one of them")
    conditions = _parse_where(where)
    with Reco.open(model, existing_memory(memory)) as reco:
        query, modality = (text, "text") if image is None else (image, "image")
        found = reco.memory.search(query, modality=modality, by=by, k=k, where=conditions)  # type: ignore[arg-type]
    payloads = (found.payloads or [[]])[0]
    hits = [
        {"id": id_, "similarity": round(float(similarity), 6), "payload": dict(payload)}
        for id_, similarity, payload in zip(found.ids[0], found.similarity[0], payloads, strict=False)
    ]
    shown = [f"{h['similarity']:.3f}  {h['id']}  {json.dumps(h['payload'], ensure_ascii=False)}" for h in hits]
    _say(hits, "\n".join(shown) or "nothing found", as_json)


@memory_app.command("remove", epilog="Example: reco memory remove fox-1 fox-2 --memory ./memory")
@reports_errors
def remove_command(
    ids: Annotated[list[str], typer.Argument(help="Ids of the pairs.")],
    *,
    memory: MemoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete pairs by id; ids that are not there are no error. Needs no model."""
    store = open_store(memory)
    try:
        removed, left = store.delete(ids), store.count()
    finally:
        store.close()
    _say({"removed": removed, "pairs": left}, f"removed {removed:,} pairs; {left:,} are left", as_json)


@memory_app.command("export", epilog="Example: reco memory export pairs.parquet --memory ./memory")
@reports_errors
def export_command(
    target: Annotated[Path, typer.Argument(help="File to write: .parquet or .npz.")],
    *,
    memory: MemoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write all pairs, as vectors with ids and payloads, into one file. Needs no model."""
    from ..data import write_pairs

    store = open_store(memory)
    try:
        written = write_pairs(target, _told(store.scroll(), store.count(), "export"))
    finally:
        store.close()
    _say({"exported": written, "file": str(target)}, f"wrote {written:,} pairs to {target}", as_json)


@memory_app.command("import", epilog="Example: reco memory import pairs.parquet --memory ./copy")
@reports_errors
def import_command(
    source: Annotated[Path, typer.Argument(help="A .parquet or .npz file with id, image, text.")],
    *,
    model: ModelOption = None,
    memory: MemoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add pairs that are vectors already. They must be of the model's encoder: nothing in the file tells."""
    from ..data import read_records
    from ..reco import Reco

    with Reco.open(model, memory_location(memory)) as reco:
        added = reco.memory.add_records(_told(read_records(source), None, "import"))
        _say(
            {"imported": added, "pairs": len(reco.memory)},
            f"imported {added:,} pairs; the memory holds {len(reco.memory):,}",
            as_json,
        )


def open_store(memory: str | None) -> Memory:
    """The memory alone, whichever encoder made it."""
    from ..config import load_settings
    from ..memory import open_memory

    settings = load_settings()
    key = settings.memory_api_key.get_secret_value() if settings.memory_api_key else None
    return open_memory(
        memory_location(memory),
        None,
        kind=settings.memory_kind,
        create=False,
        collection=settings.memory_collection,
        api_key=key,
    )


def _told(records: Iterable[Records], total: int | None, what: str) -> Iterator[Records]:
    from tqdm import tqdm

    with tqdm(total=total, desc=what, unit="pair", disable=None) as bar:
        for batch in records:
            yield batch
            bar.update(len(batch))


def _parse_where(text: str | None) -> dict[str, Any] | None:
    from ..errors import InputError

    if text is None:
        return None
    try:
        conditions = json.loads(text)
    except ValueError as error:
        raise InputError(f'--where is no JSON: {error}; write it as \'{{"shop": "de"}}\'') from None
    if not isinstance(conditions, dict):
        raise InputError(f"--where must be a JSON object, got {text!r}")
    return conditions


def _say(result: Any, text: str, as_json: bool) -> None:
    typer.echo(json.dumps(result, ensure_ascii=False, indent=2) if as_json else text)
