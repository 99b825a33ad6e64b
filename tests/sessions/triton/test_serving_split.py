"""The serving benchmark on a real server: its own clock tells computing and transport apart."""

from __future__ import annotations

import pytest

from benchmarks.serving import Subject, fill, samples, served
from reco_plugin import Reco

pytestmark = pytest.mark.xdist_group("triton")


@pytest.mark.parametrize(("scheme", "shared"), [("grpc", "off"), ("http", "off"), ("grpc", "on")])
@pytest.mark.parametrize("modality", ["image", "text"])
def test_every_step_takes_time(server, model, modality, scheme, shared):
    there = {"triton_url": server.url(scheme), "triton_shared_memory": shared, "on_memory_failure": "fail"}
    with Reco.open(model, ":memory:", memory_kind="exact", **there) as reco:
        fill(reco, 30)
        before = served(server.http, f"clip_{modality}")[1]
        times = Subject(reco, server.http).once(modality, samples(modality, 2))
        assert served(server.http, f"clip_{modality}")[1] >= before + times["encode"]
    assert all(seconds > 0 for seconds in times.values()), times
