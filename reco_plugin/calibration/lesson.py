"""What is learned from pairs that are at hand, in this process or in one of its own, see :mod:`.apart`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..fuse import Refining
from ..memory import Memory, open_memory
from ..options import RefineOptions
from ..types import Fingerprint, Modality, Records, Refinement, Vectors
from .calibrate import Calibrated, calibrate
from .closed_form import ClosedForm
from .match import MatchState
from .questions import ask_own
from .state import Calibration

COMPARED, FITTED = 2, 3
"""Progress per pair: it is compared by image and by text, and fitted to, by either and in the self-check."""
_AT_ONCE = 256


class Taught(NamedTuple):
    """What pairs taught: the state, the witnesses (N, 3) of each, and how sure an answer is, where they could tell."""

    state: Calibration
    witnesses: npt.NDArray[np.float32]
    matches: MatchState | None


class Lesson:
    """Learns from pairs that it is given, and then judges others beside them."""

    def __init__(self, progress: Callable[[int], object] = int) -> None:
        self._progress = progress
        self._learned: Calibrated | None = None

    def learn(self, pairs: Records, k: int, groups: Sequence[str] | None, *, asks: bool) -> Taught | None:
        """Learn from pairs (N, D); None where they are too few, or too equal.

        Args:
            pairs: their payloads are not looked at.
            k: neighbours of the searches to come.
            groups: the thing of each pair, see :func:`~.questions.ask_own`.
            asks: whether they also ask how sure an answer is.
        """
        left = (COMPARED + FITTED) * len(pairs)

        def count(steps: int) -> None:
            nonlocal left
            left -= steps
            self._progress(steps)

        self._learned = learned = calibrate(pairs.image, pairs.text, k=k, progress=count)
        self._progress(left)  # a small memory has no self-check
        if learned is None:
            return None
        asks = asks and learned.state.fitted
        matches = ask(pairs, learned.state, learned.witnesses, k, groups, self._progress) if asks else None
        return Taught(learned.state, learned.witnesses, matches)

    def judge(self, image: Vectors, text: Vectors) -> npt.NDArray[np.float32]:
        """Witnesses (M, 3) of other pairs (M, D), by their neighbours among those that were learned from."""
        if self._learned is None:
            raise RuntimeError("nothing was learned yet")
        return self._learned.witness(image, text)


@dataclass(frozen=True)
class _InRam:
    """See :class:`~reco_plugin.fuse.Learned`."""

    store: Memory
    calibration: Calibration | None

    @property
    def searches(self) -> Memory:
        """The store."""
        return self.store


def ask(
    pairs: Records,
    state: Calibration,
    witnesses: npt.NDArray[np.float32],
    k: int,
    groups: Sequence[str] | None,
    progress: Callable[[int], object] = int,
) -> MatchState | None:
    """Let pairs ask how sure an answer is, refined as a memory of these pairs alone would by default.

    So thousands of questions take seconds, and a store is not kept busy.
    """
    how = RefineOptions(k=k, gate=True, target=None, caution="balanced", fuser="reco", explain=False)
    encoder, fuser = Fingerprint("pairs at hand", "0" * 64, pairs.image.shape[1]), ClosedForm()
    with closing(open_memory(":memory:", encoder)) as store:
        store.upsert(pairs)
        store.set_witnesses(pairs.ids, witnesses)
        learned = _InRam(store, state)

        def refine(queries: Vectors, modality: Modality, hidden: Sequence[Collection[str]]) -> Refinement:
            blocks = (slice(start, start + _AT_ONCE) for start in range(0, len(queries), _AT_ONCE))
            asked = (Refining(learned, queries[rows], modality, "query", how, hidden[rows]) for rows in blocks)
            return Refinement.join([fuser.refine(one) for one in asked])

        return ask_own(pairs, refine, groups, progress=progress)
