"""``reco memory``: fill, search and inspect the memory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from textwrap import fill, shorten
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ..errors import ConfigError, InputError
from ..types import Modality
from ..values import counted, strip_marks
from .service import KeyFileOption, ServiceOption, ServiceOptions, open_here_or_served, served_reco
from .shared import Given, JsonOption, MemoryFlags, OpenOptions, keeps, reco_of, say, take_flags, takes

if TYPE_CHECKING:
    from ..client.memory import ServedMemory
    from ..memory.edge import EdgeMemory

_COLUMNS, _CAPTION = 100, 60
_AGAIN = "run reco memory calibrate"


@takes(MemoryFlags)
def info_command(*, given: Given, as_json: JsonOption = False) -> None:
    """Show engine, number of pairs, their encoder, and what was learned about them. Needs no model.

    The gains are those of the memory's own pairs, each hidden from itself: right in sign, not in size, and
    blind to a memory that has nothing to do with the queries.
    """
    from ..calibration.note import unfinished

    with closing(take_flags(MemoryFlags, given).open()) as store:
        header, count = store.header, store.count()
        left = store.count_unjudged() if header.calibration else 0
        index = cast("EdgeMemory", store).index_state if store.kind == "edge" else ""
    fingerprint = header.fingerprint
    info = {
        "kind": store.kind,
        "location": store.location,
        "pairs": count,
        "encoder": {"name": fingerprint.name, "digest": fingerprint.digest, "dimension": fingerprint.dimension},
        "calibration": _shown_calibration(header.calibration),
        "unjudged": left,
    }
    lines = [f"{store.kind} memory at {store.location}: {counted(count, 'pair')}", f"encoder  {fingerprint}"]
    lines += _block("gate", calibration_lines(header.calibration, count))
    info["opinions"] = header.opinions
    if header.said:
        damaged = len(header.said) - header.opinions
        unread = f"; {damaged:,} more cannot be read" if damaged else ""
        lines.append(f"feedback {counted(header.opinions, 'opinion')} of people{unread}, see reco memory feedback")
    if waiting := unfinished(header):
        info["unfinished"] = waiting
        lines += _block("note", [waiting])
    if left:
        lines.append(
            f"judged   all but {counted(left, 'pair')}, which count as average until the next write, or: {_AGAIN}"
        )
    if index:
        info["index"] = index
        lines.append(f"index    {index}")
    say(info, "\n".join(lines), as_json)


@takes(OpenOptions)
def search_command(
    text: Annotated[str | None, typer.Argument(help="A text to search by.")] = None,
    *,
    image: Annotated[Path | None, typer.Option(help="An image to search by instead.")] = None,
    by: Annotated[
        Modality | None, typer.Option(help="Modality of the memory to compare with.", show_default="the query's own")
    ] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="Number of pairs.")] = 10,
    where: Annotated[str | None, typer.Option(metavar="JSON", help="Conditions on the payload.")] = None,
    given: Given,
    as_json: JsonOption = False,
) -> None:
    """Find the pairs nearest to a text or an image, as a query would retrieve them."""
    if (text is None) == (image is None):
        raise InputError("give a text or --image, one of them")
    conditions = _parse_where(where)
    asked = take_flags(OpenOptions, given)
    named = {} if asked.model is None else {"model": asked.model}
    settings = asked.existing.model_copy(update={"on_memory_failure": "fail", **named})
    served = served_reco(settings, ServiceOptions())
    with served or reco_of(asked.model, settings, on_memory_failure="fail") as reco:
        query, modality = (text, "text") if image is None else (image, "image")
        words = reco.defaults.get("words") is not False
        found = reco.memory.search(query, modality=modality, by=by, k=k, where=conditions, words=words)  # type: ignore[arg-type]
    payloads = (found.payloads or [[]])[0]
    hits = [
        {"id": id_, "similarity": round(float(similarity), 6), "payload": dict(payload)}
        for id_, similarity, payload in zip(found.ids[0], found.similarity[0], payloads, strict=False)
    ]
    say(hits, _table(hits) or "nothing found", as_json)


def _table(hits: Sequence[dict[str, Any]]) -> str:
    """Hits as lines: similarity, id, caption, then the rest of the payload."""
    rows = [(str(hit["id"]), strip_marks(hit["payload"])) for hit in hits]
    captions = [shorten(str(payload.pop("caption", "")), _CAPTION, placeholder=" …") for _, payload in rows]
    wide, wider = (max(map(len, texts), default=0) for texts in ([id_ for id_, _ in rows], captions))
    lines = []
    for hit, (id_, payload), caption in zip(hits, rows, captions, strict=True):
        rest = "  ".join(f"{key}={value}" for key, value in payload.items())
        lines.append(f"{hit['similarity']:.3f}  {id_:<{wide}}  {caption:<{wider}}  {rest}".rstrip())
    return "\n".join(lines)


def _parse_where(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        conditions = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f'--where is no JSON: {error}; write it as \'{{"shop": "de"}}\'') from None
    if not isinstance(conditions, dict):
        raise InputError(f"--where must be a JSON object, got {text!r}")
    return conditions


@takes(OpenOptions)
def calibrate_command(
    *,
    service: ServiceOption = None,
    key_file: KeyFileOption = None,
    given: Given,
    as_json: JsonOption = False,
) -> None:
    """Learn from the memory's own pairs which captions to trust, how far queries move, and what that gains.

    No labels are needed: its pairs ask, each hidden from itself. Adding pairs does the same when the memory is new or
    has doubled, or a quarter of its pairs are new; this command is for the rest: after many smaller changes, or
    deletions. Takes a minute for 20,000 pairs; of more, so many are drawn at random, and the others are then judged
    beside those.

    Searches go on meanwhile, by the old state or the new, never by half of it; a service reads the new one from a
    server within two seconds. Where a service has the memory's folder open, it learns itself, by its own k, and goes on
    if this is interrupted: run it again to wait for it.
    """
    from ..api_encoder import load_model
    from ..calibration.learn import STEPS, learn
    from ..progress import progress_bar

    begun, asked, via = monotonic(), take_flags(OpenOptions, given), ServiceOptions(service, key_file)
    via.check(asked.memory)
    settings = asked.settings
    manifest = load_model(asked.model or settings.model).manifest
    with closing(open_here_or_served(settings, via, manifest.fingerprint)) as store:
        pairs = store.count()
        if store.kind == "served":
            calibration = _let_learn(cast("ServedMemory", store))
        else:
            if store.kind == "edge":
                cast("EdgeMemory", store).check_writable()  # a read-only folder would forget it at once
            with (
                keeps("the state in use is the old one or the new one, as a whole; run it again"),
                progress_bar(total=STEPS * pairs, desc="calibrate", unit="step") as bar,
            ):
                learn(store, settings.refining.get("k") or manifest.policy.k, progress=bar.update)
            calibration = store.header.calibration
    text = "\n".join(calibration_lines(calibration, pairs))
    if not calibration:
        text = (
            f"nothing was learned: {counted(pairs, 'pair is', 'pairs are')} too few (20, with 5 captions), or too equal"
        )
    say(
        {"pairs": pairs, "seconds": round(monotonic() - begun, 1), "calibration": _shown_calibration(calibration)},
        text,
        as_json,
    )


def _let_learn(served: ServedMemory) -> dict[str, Any]:
    """Let the service that has the memory open learn, with its progress; returns what it learned."""
    from ..progress import progress_bar

    with (
        keeps("the service goes on learning; the same command waits for it again"),
        progress_bar(total=0, desc="calibrate", unit="step") as bar,
    ):

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return served.calibrate(show)


def _shown_calibration(calibration: dict[str, Any]) -> dict[str, Any]:
    """What was learned, without the arrays; empty if nothing was."""
    return (
        {name: value for name, value in calibration.items() if name not in ("blob", "match")}
        if "blob" in calibration
        else {}
    )


def calibration_line(calibration: dict[str, Any], pairs: int) -> str:
    """The same as :func:`calibration_lines`, in one line."""
    return "; ".join(calibration_lines(calibration, pairs))


def calibration_lines(calibration: dict[str, Any], pairs: int) -> list[str]:
    """What a memory of so many pairs has learned about them, with the figures of its self-check."""
    from ..calibration.state import FEWEST, Calibration

    if not calibration:
        few = f"{counted(pairs, 'pair is', 'pairs are')} too few, it needs {FEWEST}"
        return [f"not calibrated: {few if pairs < FEWEST else _AGAIN}"]
    try:
        state = Calibration.from_json(calibration)
    except ConfigError as error:
        return [f"not calibrated: {error}"]
    said = [f"calibrated on {counted(state.pairs, 'pair')}"]
    if not state.pairs / 2 < pairs < state.pairs * 2:
        said.append(f"and {pairs:,} are there now: {_AGAIN}")
    if state.check is not None:
        said += [f"{state.check}: {state.check.meaning}", *filter(None, [state.check.advice])]
        if not state.check.by_chance:
            fit = f"{1 - state.check.wrong:.2f} of 1"
            said.append(f"its captions fit their neighbours by {fit}, which ranks pairs and is no share of right ones")
        said.append(state.among_own)
        said.append(state.tells_presence)
    elif not state.fitted and not state.reason:
        said.append(f"{state.whose_gates}, since it has few pairs, and no self-check")
    return [*said, *([state.reason] if state.reason else [])]


def _block(name: str, sentences: Sequence[str]) -> Iterator[str]:
    """A name, and sentences beside it, each on lines of its own."""
    for place, sentence in enumerate(sentences):
        head = f"{'' if place else name:<9}"
        yield from fill(sentence, _COLUMNS, initial_indent=head, subsequent_indent=" " * 11).splitlines()
