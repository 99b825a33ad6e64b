"""The client before a real `reco serve` that hangs, goes on and is killed, while queries are answered."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
from live_service import wait_until
from service_process import process

from reco_plugin import Pair, Reco
from reco_plugin.client import Client, service
from reco_plugin.errors import SessionError

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::reco_plugin.retrieval.guard.DegradedWarning")]
TEXT = ["a small red circle"]


def test_queries_are_answered_while_it_hangs_and_after_it_was_killed(
    tmp_path: Path, model: Path, drawings: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_RETRY_S", 1.0)
    with Reco.open(model, memory=tmp_path / "memory") as reco:
        reco.memory.add(drawings)
        frozen = reco.embed_texts(TEXT, refine=False)
    with (
        process(tmp_path, model, "--memory", str(tmp_path / "memory"), "--no-page") as (running, url),
        Client(url, degrade_after_s=0.5) as client,
    ):

        def reason() -> str | None:
            found = client.refine(frozen, modality="text")
            assert np.allclose(found.vectors, frozen, atol=1e-5) == (found.degraded is not None)
            return found.degraded

        wait_until(lambda: reason() is None)
        running.send_signal(signal.SIGSTOP)  # connections are accepted and never answered
        assert {reason() for _ in range(6)} == {"service_timeout", "service_circuit_open"}
        running.send_signal(signal.SIGCONT)
        wait_until(lambda: reason() is None)
        running.kill()
        running.wait()
        assert {reason() for _ in range(6)} == {"service_error", "service_circuit_open"}
        with pytest.raises(SessionError):
            client.embed_texts(TEXT, role="candidate")
