"""The protocol of a session, which runs one graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy.typing as npt

Arrays = dict[str, npt.NDArray[Any]]


class Session(Protocol):
    """One loaded graph; safe to call from several threads."""

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Compute all outputs by name; arrays are (B, ...).

        Raises:
            SessionError: the graph refuses the inputs or fails.
            SessionUnavailable: the server cannot be reached.
            SessionTimeout: the server did not answer in time.
        """


def describe_inputs(inputs: Mapping[str, npt.NDArray[Any]]) -> str:
    """Return types and shapes of a graph's inputs, for messages."""
    return str({name: f"{array.dtype}{list(array.shape)}" for name, array in inputs.items()})
