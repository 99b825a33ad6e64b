"""Graphs are opened once."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from reco_plugin.encoders.model_folder import Artifact
from reco_plugin.encoders.runtimes.graphs import Graphs, Session, open_graph
from reco_plugin.settings import Settings, load_settings


def test_threads_that_begin_together_open_a_graph_once(model: Path) -> None:
    opened, together = [], threading.Barrier(8)

    def opening(artifact: Artifact, name: str, settings: Settings) -> Session:
        opened.append(name)
        time.sleep(0.1)  # in which the others come
        return open_graph(artifact, name, settings)

    graphs = Graphs(Artifact.load(model), load_settings(model=model), opening)

    def take(_: int) -> Session:
        together.wait(60)
        return graphs["clip_text"]

    with ThreadPoolExecutor(8) as threads:
        found = [*threads.map(take, range(8))]
    assert opened == ["clip_text"]
    assert all(one is found[0] for one in found)
