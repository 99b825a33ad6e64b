"""A real server that is slow, full, killed, restarted, or serves something else: the right error, and recovery."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from triton_server import TritonServer
from triton_slow_model import SECOND

from reco_plugin.encoders.model_folder import Artifact
from reco_plugin.encoders.runtimes.graphs import open_graph
from reco_plugin.encoders.runtimes.triton import TritonSession, connect
from reco_plugin.encoders.runtimes.triton_address import address_of
from reco_plugin.errors import SessionError, SessionOverloaded, SessionTimeout, SessionUnavailable
from reco_plugin.settings import load_settings

pytestmark = [pytest.mark.triton, pytest.mark.xdist_group("triton")]


def rounds(number: int) -> dict[str, np.ndarray]:
    return {"rounds": np.array([[number]], np.int64)}


def slow(server: TritonServer, timeout: float = 60.0, graph: str = "slow") -> TritonSession:
    return TritonSession(
        connect(address_of(load_settings(triton_url=server.grpc))), graph, ("done",), max_batch=1, timeout=timeout
    )


def when_idle(session: TritonSession, number: int) -> int:
    """Count to a number; what an earlier test gave up may still run and fill the queue."""
    while True:
        try:
            return int(session.run(rounds(number))["done"].item())
        except SessionOverloaded:
            time.sleep(0.05)


@pytest.fixture
def fragile(start_server: Callable[..., TritonServer], model: Path, slow_models: Path) -> Iterator[TritonServer]:
    """A server of one's own, to be killed."""
    server = start_server(model, slow_models, models=["paper_text", "slow"])
    yield server
    server.kill()


def test_the_deadline_is_kept_when_the_model_is_slow(server):
    assert when_idle(slow(server), 3) == 3
    with pytest.raises(SessionTimeout, match=r"slow failed on .*within 0\.\d+ s.*triton_timeout_s"):
        slow(server, timeout=0.1).run(rounds(SECOND))
    assert when_idle(slow(server), 5) == 5


def test_a_full_queue_is_told_from_a_dead_server(server):
    session, barrier = slow(server), threading.Barrier(8)
    when_idle(session, 1)

    def ask(_: int) -> Any:
        barrier.wait()
        try:
            return session.run(rounds(SECOND // 4))["done"].item()
        except SessionOverloaded as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    refused = [answer for answer in answers if isinstance(answer, str)]
    assert refused
    assert all("queue" in answer and "maximum queue size" in answer for answer in refused)
    served = [answer for answer in answers if not isinstance(answer, str)]
    assert served
    assert set(served) == {SECOND // 4}
    assert when_idle(session, 2) == 2


def test_a_killed_server_is_an_error_and_its_successor_serves(fragile, artifact, fusion_inputs):
    settings = load_settings(triton_url=fragile.grpc)
    session, inputs = open_graph(artifact, "paper_text", settings), fusion_inputs(4, 3)
    expected = open_graph(artifact, "paper_text", load_settings()).run(inputs)["refined"]
    np.testing.assert_allclose(session.run(inputs)["refined"], expected, rtol=0, atol=1e-5)

    with ThreadPoolExecutor(1) as pool:
        cut_off = pool.submit(slow(fragile).run, rounds(20 * SECOND))
        time.sleep(0.3)  # it is on its way by now; if not, the error is the same
        fragile.kill()
        with pytest.raises(SessionUnavailable, match=fragile.grpc):
            cut_off.result(timeout=30)
    assert (fragile.processes(), fragile.shared_memory()) == ([], [])

    with pytest.raises(SessionUnavailable, match=r"paper_text failed on .*no Triton server can be reached at"):
        session.run(inputs)

    fragile.start()
    np.testing.assert_allclose(session.run(inputs)["refined"], expected, rtol=0, atol=1e-5)


def test_a_server_that_does_not_serve_the_graph_is_refused_with_the_way_out(fragile, artifact):
    settings = load_settings(triton_url=fragile.grpc)
    with pytest.raises(SessionError, match=r"clip_text cannot be opened: .*clip_text.*--model-repository=") as caught:
        open_graph(artifact, "clip_text", settings)
    assert type(caught.value) is SessionError


def test_other_ports_than_the_folders_are_refused_naming_both(server, artifact, tmp_path):
    other = Path(shutil.copytree(artifact.folder, tmp_path / "other"))
    config = other / "paper_text" / "config.pbtxt"
    config.write_text(config.read_text().replace("TYPE_FP32", "TYPE_FP16", 1))
    settings = load_settings(triton_url=server.grpc)
    with pytest.raises(SessionError, match=r"differs: ") as caught:
        open_graph(Artifact.load(other), "paper_text", settings)
    message = str(caught.value)
    d = artifact.manifest.dimension
    assert f"the server at {server.grpc} has neighbours FP32[-1, {d}], query FP32[{d}]" in message
    assert f"the model folder {other} has neighbours FP32[-1, {d}], query FP16[{d}]" in message


def test_other_weights_of_the_same_shapes_are_refused(server, artifact):
    served = artifact.manifest.graphs["paper_text"]
    graphs = {**artifact.manifest.graphs, "paper_text": served.model_copy(update={"sha256": "ab" * 32})}
    other = replace(artifact, manifest=artifact.manifest.model_copy(update={"graphs": graphs}))
    with pytest.raises(SessionError, match=rf"sha256 is {served.sha256[:12]}.* and abababab"):
        open_graph(other, "paper_text", load_settings(triton_url=server.grpc))
