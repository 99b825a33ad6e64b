"""``reco memory calibrate``, and what a memory knows about itself, in one line."""

from __future__ import annotations

from contextlib import closing
from time import monotonic
from typing import Any

from .errors import keeps
from .options import JsonOption, MemoryOption, ModelOption
from .stores import CollectionOption, memory_settings, say

AGAIN = "run reco memory calibrate"


def calibrate_command(
    *,
    model: ModelOption = None,
    memory: MemoryOption = None,
    collection: CollectionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Learn from the memory's own pairs which captions to trust, how far queries move, and what that gains.

    No labels are needed: pairs are held out, and ask. Adding pairs does the same when the memory is new or has doubled;
    this command is for an attached collection, for a memory of an older version, and for the rest: after many smaller
    changes, or deletions. Takes seconds for 10,000 pairs and a minute for 100,000; of more than 200,000, so many are
    drawn at random, and the others are then judged beside those. On a Qdrant server it also measures how deep searches
    must look.
    Searches go on meanwhile, by the old state or the new, never by half of it; a service reads the new one from a
    server within half a minute.
    """
    from ..artifact import Artifact
    from ..learn import STEPS, learn
    from ..memory import memory_of
    from ..progress import progress_bar

    begun, settings = monotonic(), memory_settings(memory, collection)
    manifest = Artifact.load(model or settings.model).manifest
    with (
        keeps("the state in use is the old one or the new one, as a whole; run it again"),
        closing(memory_of(settings, manifest.fingerprint, create=False)) as store,
    ):
        pairs = store.count()
        with progress_bar(total=STEPS * pairs, desc="calibrate", unit="step") as bar:
            learn(store, settings.k or manifest.policy.k, progress=bar.update)
        trust = store.header.trust
    text = trust_line(trust, pairs)
    if not trust:
        text = f"nothing was learned: {pairs:,} pairs are too few (20, with 5 different captions), or too equal"
    say({"pairs": pairs, "seconds": round(monotonic() - begun, 1), "trust": shown_trust(trust)}, text, as_json)


def shown_trust(trust: dict[str, Any]) -> dict[str, Any]:
    """What was learned, without the arrays; empty if nothing was, or only by an older version."""
    return {name: value for name, value in trust.items() if name != "blob"} if "blob" in trust else {}


def trust_line(trust: dict[str, Any], pairs: int) -> str:
    """What a memory of so many pairs has learned about them, with the figures of its self-check."""
    from ..errors import ConfigError
    from ..trust import State
    from ..trust.calibrate import FEWEST

    if not trust:
        return f"not calibrated: {f'{pairs} pairs are too few, it needs {FEWEST}' if pairs < FEWEST else AGAIN}"
    if trust.get("format") == 0:
        return f"calibrated by an older version: {AGAIN}"
    try:
        state = State.from_json(trust)
    except ConfigError as error:
        return f"not calibrated: {error}"
    said = [f"calibrated on {state.pairs:,} pairs"]
    if not state.pairs / 2 < pairs < state.pairs * 2:
        said.append(f"and {pairs:,} are there now: {AGAIN}")
    if state.check is not None:
        said.append(f"{state.check}: {state.check.meaning}; {state.check.advice}")
        said.append(f"{1 - state.check.wrong:.0%} of its captions look right")
    elif not state.fitted and not state.reason:
        said.append("a safe gate, since it has too few pairs for its own and for a self-check")
    return "; ".join([*said, *([state.reason] if state.reason else [])])
