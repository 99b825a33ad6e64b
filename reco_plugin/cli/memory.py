"""``reco memory info``, ``search``, ``remove`` and ``feedback``: read a memory, delete pairs, give feedback."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ..errors import InputError
from ..memory.header import describe_loss
from ..values import counted, show, strip_marks
from .shared import (
    Given,
    JsonOption,
    KOption,
    MemoryFlags,
    MemoryOption,
    ModelOption,
    OpenOptions,
    calibration_lines,
    on_one_line,
    reco_here_or_served,
    say,
    take_flags,
    takes,
)

if TYPE_CHECKING:
    from ..client.served_memory import ServedMemory
    from ..signals.opinions import Opinion

_CAPTION = 60  # characters
_CHECKED, _NAMED = 1_000, 3  # ids to remove: how many are checked first, and named if no pair has them


def info_command(*, memory: MemoryOption = None, as_json: JsonOption = False) -> None:
    """Show where a memory is, how many pairs it holds, their encoder, and what was learned. Needs no model.

    The gains are those of the memory's own pairs, each hidden from itself. They are right in sign, not in size, and do
    not apply to other kinds of queries.
    """
    from ..fusion.explain import why_plain
    from .memory_copy import header_of

    with closing(MemoryFlags(memory).open()) as store:
        header, count, feedback = store.header, store.count(), header_of(store).said
        missing = int(getattr(store, "missing", 0))
    fingerprint, plain = header.fingerprint, why_plain(header, count)
    info = {
        "kind": store.kind,
        "location": store.location,
        "pairs": count,
        "missing": missing,
        "encoder": {"name": fingerprint.name, "digest": fingerprint.digest, "dimension": fingerprint.dimension},
        "calibration": {name: one for name, one in header.calibration.items() if name != "blob"},
        "opinions": len(feedback),
        "plain": plain,
    }
    lines = [plain] if plain else []
    lines += [f"{store.kind} memory at {store.location}: {counted(count, 'pair')}", f"encoder  {fingerprint}"]
    if learned := calibration_lines(header, count):
        lines.append(f"gate     {', '.join(learned)}")
    if feedback:
        lines.append(f"feedback {counted(len(feedback), 'opinion')}: see reco memory feedback")
    if missing:
        lines.append(f"note     {describe_loss(missing)}")
    say(info, "\n".join(lines), as_json)


def search_command(
    text: Annotated[str | None, typer.Argument(metavar="TEXT", help="A text to search by.")] = None,
    *,
    image: Annotated[Path | None, typer.Option(metavar="FILE", help="Search by this image instead of a text.")] = None,
    k: KOption = 10,
    where: Annotated[
        str | None, typer.Option(metavar="JSON", help="Return only pairs whose payload meets these conditions.")
    ] = None,
    memory: MemoryOption = None,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find the pairs nearest to a text or an image, as a query would retrieve them."""
    if (text is None) == (image is None):
        raise InputError("give either a text or --image")
    conditions = _parse_where(where)
    settings = OpenOptions(memory, model).existing
    query, modality = (text, "text") if image is None else (image, "image")
    with reco_here_or_served(settings) as reco:
        words = reco.defaults.get("words") is not False
        neighbours = reco.memory.search(query, modality=modality, k=k, where=conditions, words=words)  # type: ignore[arg-type]
    payloads = (neighbours.payloads or [[]])[0]
    hits = [
        {"id": id_, "similarity": round(float(similarity), 6), "payload": dict(payload)}
        | ({"words": neighbours.words[0]} if neighbours.word_ids and id_ in neighbours.word_ids[0] else {})
        for id_, similarity, payload in zip(neighbours.ids[0], neighbours.similarity[0], payloads, strict=False)
    ]
    head = f"found by words: {neighbours.words[0]}\n" if neighbours.word_ids and neighbours.word_ids[0] else ""
    say(hits, head + _table(hits) if hits else "nothing found", as_json)


def remove_command(
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID", help="The ids of the pairs.")] = None,
    *,
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="FILE", help="Also delete the ids of a .txt file, or of a source's rows."),
    ] = None,
    memory: MemoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete pairs by id; an id that no pair has is named in a warning. Needs no model."""
    if not ids and source is None:
        raise InputError("nothing to remove: give ids, or --from FILE")
    flags = MemoryFlags(memory)
    wanted = list(dict.fromkeys([*(ids or []), *(_ids_in(source) if source else [])]))
    with closing(flags.open()) as store:
        known = {name for name, _ in store.payloads(wanted[:_CHECKED])} if wanted else set()
        removed, left = store.delete(wanted), store.count()
    if (absent := len(wanted) - removed) > 0:
        names = [show(name) for name in wanted[:_CHECKED] if name not in known][:_NAMED]
        examples = f", such as {', '.join(names)}" if names else ""
        typer.echo(f"warning: the memory has no pair of {counted(absent, 'id')}{examples}", err=True)
    text = f"removed {counted(removed, 'pair')}; {counted(left, 'is', 'are')} left"
    say({"removed": removed, "pairs": left}, text, as_json)


def _ids_in(source: str) -> list[str]:
    """The ids in a list, or of a source's rows, rejected ones included."""
    from ..sources import open_source
    from ..sources.location import read_lines

    if (path := Path(source)).suffix.lower() == ".txt":
        return read_lines(path)
    return [row.id for row in open_source(source) if row.id is not None]


def _table(hits: Sequence[dict[str, Any]]) -> str:
    """Format hits as lines: similarity, id, caption, and the rest of the payload."""
    rows = [(str(hit["id"]), strip_marks(hit["payload"])) for hit in hits]
    captions = [shorten(str(payload.pop("caption", "")), _CAPTION, placeholder=" …") for _, payload in rows]
    wide, wider = (max(map(len, texts), default=0) for texts in ([id_ for id_, _ in rows], captions))
    lines = []
    for hit, (id_, payload), caption in zip(hits, rows, captions, strict=True):
        rest = "  ".join(f"{key}={value}" for key, value in payload.items())
        lines.append(on_one_line(f"{hit['similarity']:.3f}  {id_:<{wide}}  {caption:<{wider}}  {rest}".rstrip()))
    return "\n".join(lines)


def _parse_where(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        conditions = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f'--where is not JSON: {error}; write it as \'{{"shop": "de"}}\'') from None
    if not isinstance(conditions, dict):
        raise InputError(f"--where must be a JSON object, got {text!r}")
    return conditions


@dataclass(frozen=True)
class _Judgment(OpenOptions):
    """One opinion on one answer."""

    wrong: Annotated[
        str | None,
        typer.Option("--not", metavar="PAIR", help="Say that this pair, by its id, is a wrong answer to the query."),
    ] = None
    right: Annotated[
        str | None,
        typer.Option("--right", metavar="PAIR", help="Say that this pair is a right answer, after all."),
    ] = None
    text: Annotated[str | None, typer.Option(metavar="TEXT", help="The query is this text.")] = None
    image: Annotated[Path | None, typer.Option(metavar="FILE", help="The query is this image.")] = None
    by: Annotated[str, typer.Option(metavar="NAME", help="Store who says so.")] = ""


@takes(_Judgment)
def feedback_command(
    *,
    withdraw: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Delete this opinion; repeat the flag for more.")
    ] = None,
    given: Given,
    as_json: JsonOption = False,
) -> None:
    """List feedback on answers, oldest first, or give it: a pair that is wrong for a query no longer moves it.

    Feedback is stored with the memory and used at once. The newest opinion on one query and answer counts. More:
    docs/feedback.md
    """
    flags = take_flags(_Judgment, given)
    if flags.wrong is not None or flags.right is not None:
        _judge(flags, as_json=as_json)
    elif withdraw:
        _withdraw(flags, withdraw, as_json=as_json)
    else:
        _list(flags, as_json=as_json)


def _judge(flags: _Judgment, *, as_json: bool) -> None:
    if flags.wrong is not None and flags.right is not None:
        raise InputError("--not and --right are two opinions: give one of them")
    if (flags.text is None) == (flags.image is None):
        raise InputError("name the query: give either --text or --image")
    query, modality = (flags.text, "text") if flags.image is None else (flags.image, "image")
    pair, right = (flags.right, True) if flags.wrong is None else (flags.wrong, False)
    with reco_here_or_served(flags.existing) as reco:
        one = reco.memory.reject(query, pair, modality=modality, right=right, by=flags.by)  # type: ignore[arg-type]
        plain = reco.memory.calibration is None
    note = "\nthe memory has learned nothing yet, so its queries stay plain, with and without this" if plain else ""
    say(asdict(one), f"{_line(one)}{note}", as_json)


def _withdraw(flags: _Judgment, ids: list[str], *, as_json: bool) -> None:
    from ..signals.opinions import withdraw

    with closing(flags.open()) as store:
        gone = cast("ServedMemory", store).withdraw(ids) if store.kind == "served" else withdraw(store, ids)
    if absent := len(set(ids)) - gone:
        typer.echo(f"warning: {counted(absent, 'id is', 'ids are')} of no opinion", err=True)
    say({"withdrawn": gone}, f"deleted {counted(gone, 'opinion')}", as_json)


def _list(flags: _Judgment, *, as_json: bool) -> None:
    from ..signals.opinions import opinions_of

    with closing(flags.open()) as store:
        served = store.kind == "served"
        opinions = cast("ServedMemory", store).opinions() if served else opinions_of(store.look()).words
    say([asdict(one) for one in opinions], "\n".join(map(_line, opinions)) or "there is no feedback", as_json)


def _line(one: Opinion) -> str:
    """Format one opinion as a line."""
    what = "right" if one.right else "wrong"
    answer = "an answer that is no pair" if one.pair is None else f"the pair {on_one_line(one.pair)}"
    by = f"  by {on_one_line(one.by)}" if one.by else ""
    return f"{one.at}  {one.id}  {what}: {answer}, for {'an image' if one.modality == 'image' else 'a text'}{by}"
