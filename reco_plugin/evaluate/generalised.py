"""Seen and unseen classes: each among themselves, and all together, where a query may be lost to the other kind.

Classifying unseen classes among themselves is easier than the task that a user has. In the generalised setting every
query is compared with all classes; the harmonic mean of the two accuracies is high only where neither pays for the
other (Chao et al., An empirical study and analysis of generalized zero-shot learning, ECCV 2016).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .intervals import Interval, bootstrap, bootstrap_harmonic
from .table import gain, percent


@dataclass(frozen=True)
class Generalised:
    """Accuracy on seen and on unseen classes when all candidates compete; one line per side that was refined.

    Attributes:
        refined: the side that was refined; ``"frozen"`` for none.
        seen: top-1 (or top-k) of the queries of seen classes, with its 95 % interval.
        unseen: the same of the queries of unseen classes.
        harmonic: harmonic mean of the two.
        gain_seen: seen minus frozen, on the same queries.
        gain_unseen: unseen minus frozen.
        gain: harmonic mean minus frozen.
    """

    refined: str
    seen: Interval
    unseen: Interval
    harmonic: Interval
    gain_seen: Interval
    gain_unseen: Interval
    gain: Interval

    def to_dict(self) -> dict[str, Any]:
        """JSON-like; shares are from 0 to 1."""
        return {name: value._asdict() if isinstance(value, Interval) else value for name, value in vars(self).items()}


def generalised(
    ranks: Mapping[str, npt.NDArray[np.int64]], unseen: npt.NDArray[np.bool_], groups: npt.NDArray[Any], k: int = 1
) -> tuple[Generalised, ...]:
    """Split what was ranked among all candidates into seen and unseen.

    Args:
        ranks: refined side -> (N,) rank of the true candidate; ``"frozen"`` among them.
        unseen: (N,) whether the query's class is unseen.
        groups: (N,) what is drawn together for the intervals.
        k: how many of the nearest candidates count.

    Returns:
        One line per side; none where all queries are of one kind.
    """
    if unseen.all() or not unseen.any():
        return ()
    hits = {refined: (rank < k).astype(np.float64) for refined, rank in ranks.items()}
    parts = {refined: (hit[~unseen], hit[unseen]) for refined, hit in hits.items()}
    drawn = (groups[~unseen], groups[unseen])
    seen_frozen, unseen_frozen = parts["frozen"]
    return tuple(
        Generalised(
            refined=refined,
            seen=bootstrap(seen, drawn[0]),
            unseen=bootstrap(new, drawn[1]),
            harmonic=bootstrap_harmonic([seen], [new], drawn),
            gain_seen=bootstrap(seen - seen_frozen, drawn[0]),
            gain_unseen=bootstrap(new - unseen_frozen, drawn[1]),
            gain=bootstrap_harmonic([seen, seen_frozen], [new, unseen_frozen], drawn),
        )
        for refined, (seen, new) in parts.items()
    )


HEADER = ("refined", "seen %", "unseen %", "harmonic mean %", "gain in harmonic mean, 95 % interval")


def row(line: Generalised) -> list[str]:
    """The cells of one line below :data:`HEADER`."""
    shares = [percent(line.seen.mean), percent(line.unseen.mean), percent(line.harmonic.mean)]
    return [line.refined, *shares, "" if line.refined == "frozen" else gain(line.gain)]
