"""``reco memory feedback``: say that an answer is wrong for a query, list what was said, and take it back."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from ..errors import InputError
from ..values import counted
from .shared import Given, JsonOption, OpenOptions, on_one_line, reco_here_or_served, say, take_flags, takes

if TYPE_CHECKING:
    from ..client.memory import ServedMemory
    from ..extras.feedback import Opinion


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
    asked = take_flags(_Judgment, given)
    if asked.wrong is not None or asked.right is not None:
        _judge(asked, as_json=as_json)
    elif withdraw:
        _withdraw(asked, withdraw, as_json=as_json)
    else:
        _list(asked, as_json=as_json)


def _judge(asked: _Judgment, *, as_json: bool) -> None:
    if asked.wrong is not None and asked.right is not None:
        raise InputError("--not and --right are two opinions: give one of them")
    if (asked.text is None) == (asked.image is None):
        raise InputError("name the query: give either --text or --image")
    query, modality = (asked.text, "text") if asked.image is None else (asked.image, "image")
    pair, right = (asked.right, True) if asked.wrong is None else (asked.wrong, False)
    with reco_here_or_served(asked.model, asked.existing) as reco:
        one = reco.memory.reject(query, pair, modality=modality, right=right, by=asked.by)  # type: ignore[arg-type]
        plain = reco.memory.calibration is None
    note = "\nthe memory has learned nothing yet, so its queries stay plain, with and without this" if plain else ""
    say(asdict(one), f"{_line(one)}{note}", as_json)


def _withdraw(asked: _Judgment, ids: list[str], *, as_json: bool) -> None:
    from ..opinions import withdraw

    with closing(asked.open()) as store:
        gone = cast("ServedMemory", store).withdraw(ids) if store.kind == "served" else withdraw(store, ids)
    if absent := len(set(ids)) - gone:
        typer.echo(f"warning: {counted(absent, 'id is', 'ids are')} of no opinion", err=True)
    say({"withdrawn": gone}, f"deleted {counted(gone, 'opinion')}", as_json)


def _list(asked: _Judgment, *, as_json: bool) -> None:
    from ..opinions import opinions_of, say_unread, unread_in

    with closing(asked.open()) as store:
        served = store.kind == "served"
        found = cast("ServedMemory", store).opinions() if served else opinions_of(store)
        if unread := say_unread(unread_in(store.look())):
            typer.echo(f"warning: {unread}", err=True)
    say([asdict(one) for one in found], "\n".join(map(_line, found)) or "there is no feedback", as_json)


def _line(one: Opinion) -> str:
    """One opinion for people."""
    what = "right" if one.right else "wrong"
    answer = "an answer that is no pair" if one.pair is None else f"the pair {on_one_line(one.pair)}"
    by = f"  by {on_one_line(one.by)}" if one.by else ""
    return f"{one.at}  {one.id}  {what}: {answer}, for {'an image' if one.modality == 'image' else 'a text'}{by}"
