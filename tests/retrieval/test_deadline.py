"""Waiting no longer than agreed; what hangs here hangs on an event, so that nothing depends on speed."""

from __future__ import annotations

from threading import Event
from typing import Any

import pytest

from reco_plugin.retrieval.guard import Deadline, Late


def test_an_answer_and_an_error_come_through_as_they_are() -> None:
    deadline, error = Deadline(60, "patience_s"), ValueError("from inside")

    def fail() -> None:
        raise error

    assert deadline.run(lambda: [1, 2]) == [1, 2]
    with pytest.raises(ValueError, match="from inside") as caught:
        deadline.run(fail)
    assert caught.value is error


def test_a_call_that_hangs_is_left(hanging: Any) -> None:
    with pytest.raises(Late, match=r"no answer within 0\.01 s\. Raise patience_s"):
        Deadline(0.01, "patience_s").run(hanging)


def test_a_call_that_would_end_after_the_deadline_is_left() -> None:
    with pytest.raises(Late):
        Deadline(0.05, "patience_s").run(lambda: Event().wait(3))
