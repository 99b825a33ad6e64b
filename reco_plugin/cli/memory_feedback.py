"""``reco memory reject`` and ``feedback``: say what is not what was asked for, look at it, take it back."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from ..errors import InputError
from ..values import counted, show
from .service import KeyFileOption, ServiceOption, ServiceOptions, open_here_or_served, served_reco
from .shared import Given, JsonOption, MemoryFlags, OpenOptions, on_one_line, reco_of, say, take_flags, takes

if TYPE_CHECKING:
    from ..calibration.feedback import Opinion
    from ..client.memory import ServedMemory
    from ..memory import Memory


@dataclass(frozen=True)
class RejectOptions:
    """What asked, and what the answer was where that is no pair."""

    text: Annotated[str | None, typer.Option(help="The text that asked.")] = None
    image: Annotated[Path | None, typer.Option(help="The image that asked instead.")] = None
    answer: Annotated[
        str | None,
        typer.Option(help="In place of a pair, the answer itself: a caption for --image, an image file for --text."),
    ] = None
    service: ServiceOption = None
    key_file: KeyFileOption = None


@takes(OpenOptions, RejectOptions)
def reject_command(
    pair: Annotated[str | None, typer.Argument(help="Id of the pair that was the answer.")] = None,
    *,
    right: Annotated[bool, typer.Option("--right", help="Say that it is right: takes back what was said.")] = False,
    by: Annotated[str, typer.Option(help="Who says so.")] = "",
    given: Given,
    as_json: JsonOption = False,
) -> None:
    """Say that a pair is not what a text or an image asked for: it no longer moves queries like this one.

    Kept with the memory, and used at once. The newest word on one query and answer counts. More: docs/feedback.md
    """
    what, opened = take_flags(RejectOptions, given), take_flags(OpenOptions, given)
    if (what.text is None) == (what.image is None):
        raise InputError("say what asked: give --text or --image, one of them")
    via = ServiceOptions(what.service, what.key_file)
    via.check(opened.memory)
    named = {} if opened.model is None else {"model": opened.model}
    existing = opened.settings if what.service else opened.existing
    settings = existing.model_copy(update={"on_memory_failure": "fail", **named})
    query, modality = (what.text, "text") if what.image is None else (what.image, "image")
    answer = Path(what.answer) if what.answer is not None and what.image is None else what.answer
    with served_reco(settings, via) or reco_of(opened.model, settings, on_memory_failure="fail") as reco:
        one = reco.memory.reject(query, pair, modality=modality, answer=answer, right=right, by=by)  # type: ignore[arg-type]
        calibrated = reco.memory.calibration is not None
    note = "" if calibrated else "\nthe memory is not calibrated, so its queries stay plain, with and without this"
    say(asdict(one), f"{_line(one)}{note}", as_json)


@takes(MemoryFlags)
def feedback_command(
    *,
    withdraw: Annotated[list[str] | None, typer.Option(metavar="ID", help="Forget this one; repeatable.")] = None,
    forget_all: Annotated[bool, typer.Option("--forget-all", help="Forget everything that was said.")] = False,
    service: ServiceOption = None,
    key_file: KeyFileOption = None,
    given: Given,
    as_json: JsonOption = False,
) -> None:
    """Show what people said about answers, oldest first, or forget some of it. Needs no model.

    What cannot be read is told on stderr; forget it by its id, too.
    """
    from ..opinions import say_unread, unread_in
    from ..opinions import withdraw as forget

    if withdraw and forget_all:
        raise InputError("--forget-all forgets more than what --withdraw names: give one of them")
    via, asked = ServiceOptions(service, key_file), take_flags(MemoryFlags, given)
    via.check(asked.memory)
    with closing(open_here_or_served(asked.settings, via, None)) as store:
        served = cast("ServedMemory", store) if store.kind == "served" else None
        if withdraw or forget_all:
            ids = None if forget_all else withdraw
            for name in sorted(set(ids or ()).difference(store.look().said)):
                typer.echo(f"warning: {show(name)} is the id of no opinion", err=True)
            if served is None:
                gone = forget(store, ids)
            else:
                gone = served.withdraw([*store.header.said] if ids is None else ids)
            left = len(_told(store, served))
            text = f"forgot {counted(gone, 'opinion')}; {counted(left, 'is', 'are')} left"
            say({"withdrawn": gone, "opinions": left}, text, as_json)
            return
        said = _told(store, served)
        if told := say_unread(unread := unread_in(store.look())):
            typer.echo(f"warning: {told}", err=True)
        for name in list(unread)[1:]:
            typer.echo(f"  nor {show(name)}", err=True)
    say([asdict(one) for one in said], "\n".join(map(_line, said)) or "nobody has said anything", as_json)


def _told(store: Memory, served: ServedMemory | None) -> Sequence[Opinion]:
    from ..opinions import opinions_of

    return opinions_of(store) if served is None else served.opinions()


def _line(one: Opinion) -> str:
    """One opinion for people."""
    what = "right" if one.right else "not this"
    answer = "an answer that is no pair" if one.pair is None else f"the pair {on_one_line(one.pair)}"
    by = f"  by {on_one_line(one.by)}" if one.by else ""
    return f"{one.at}  {one.id}  {what}: {answer}, to {'an image' if one.modality == 'image' else 'a text'}{by}"
