"""Waiting no longer than agreed; what hangs here hangs on an event, so that nothing depends on speed."""

from __future__ import annotations

import threading
from contextvars import ContextVar

import pytest

from reco_plugin.guard import Deadline, Late

TRACE: ContextVar[str] = ContextVar("TRACE", default="none")


def test_an_answer_and_an_error_come_through_as_they_are():
    deadline, error = Deadline(60, "patience_s"), ValueError("from inside")

    def fail() -> None:
        raise error

    assert deadline.run(lambda: [1, 2]) == [1, 2]
    assert deadline.run(lambda: None) is None
    with pytest.raises(ValueError, match="from inside") as caught:
        deadline.run(fail)
    assert caught.value is error


def test_when_too_many_hang_no_other_is_begun_until_they_end(hanging):
    deadline, begun = Deadline(0.001, "patience_s"), []
    for _ in range(32):
        with pytest.raises(Late, match="no answer within"):
            deadline.run(hanging)
    with pytest.raises(Late, match="32 earlier calls"):
        deadline.run(lambda: begun.append(1))
    assert begun == []
    stuck = [thread for thread in threading.enumerate() if thread.name == "reco-deadline"]
    assert all(thread.daemon for thread in stuck)  # they do not keep the process from ending
    hanging.release()
    for thread in stuck:
        thread.join(60)
    deadline.seconds = 60
    deadline.run(lambda: begun.append(1))
    assert begun == [1]
