"""One fixed caption for each drawing, worded as different sources word theirs."""

from __future__ import annotations

from collections.abc import Sequence

from reco_plugin.quickstart.dataset import make_rng

_NAMELESS = 0.15  # the share of captions that tell about the entity but do not name it, as in the quickstart
_USUAL = 0.7  # the share of names that are the usual one
_MOST_HINTS = 2


def caption(key: str, style: str, names: Sequence[str], hints: Sequence[str], templates: Sequence[str]) -> str:
    """Word the caption of an entity in a style; depends on the arguments alone.

    Args:
        key: the entity.
        style: of the drawing.
        names: any of them names it; the first does so most often.
        hints: facts that do not name it.
        templates: with ``{}`` for the name.

    >>> caption("de", "round", ["Germany"], [], ["flag of {}"])
    'flag of Germany'
    """
    rng = make_rng("caption", key, style)
    told = list(hints)
    rng.shuffle(told)
    if told and rng.random() < _NAMELESS:
        return ", ".join(told[: 1 + _MOST_HINTS])
    name = names[0] if len(names) == 1 or rng.random() < _USUAL else rng.choice(list(names[1:]))
    return ", ".join([rng.choice(list(templates)).format(name), *told[: rng.randint(0, _MOST_HINTS)]])
