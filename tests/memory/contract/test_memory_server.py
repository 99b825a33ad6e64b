"""What only a real server can show: the one that TEST_QDRANT_URL names."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from reco_plugin.errors import MemoryOverloaded, MemoryStoreError
from reco_plugin.memory import Fingerprint, open_memory
from reco_plugin.memory.connection import Server
from reco_plugin.memory.server_versions import ServerVersions
from reco_plugin.settings import MemoryOptions
from reco_plugin.types import Records, Search

D = 64
FINGERPRINT = Fingerprint("mini/clip", "ab" * 32, D)


def pairs(n: int, start: int = 0) -> Records:
    made = np.random.default_rng(start).standard_normal((2, n, D)).astype(np.float32)
    image, text = made / np.linalg.norm(made, axis=-1, keepdims=True)
    ids = [f"p{i}" for i in range(start, start + n)]
    return Records(ids, image, text, [{"n": i} for i in range(start, start + n)])


@pytest.fixture
def name(qdrant_url: str) -> Iterator[str]:
    """A collection name of its own; what stands behind it is deleted afterwards."""
    made = f"test-{uuid.uuid4()}"
    yield made
    with closing(QdrantClient(url=qdrant_url, check_compatibility=False)) as client:
        for each in client.get_collections().collections:
            if each.name.startswith(made):
                client.delete_collection(each.name)


def test_versions_swap_under_a_reader(qdrant_url: str, name: str) -> None:
    server = Server.parse(qdrant_url)
    with (
        closing(open_memory(qdrant_url, FINGERPRINT, collection=name, options=server.options)) as reader,
        closing(ServerVersions(server, name)) as versions,
    ):
        reader.upsert(pairs(3))
        second = versions.begin(FINGERPRINT)
        with closing(open_memory(qdrant_url, None, collection=second, options=server.options, create=False)) as new:
            new.upsert(pairs(5))
        versions.finish(second, 5, wait_s=30)
        assert reader.count() == 3
        versions.use(second)
        assert reader.count() == 5
        reader.set_calibration({"gate": {"a": 1.0}})
        assert versions.rollback().name == f"{name}--v1"
        assert reader.count() == 3
        assert versions.prune() == []


def test_strict_mode_and_rate_limits_are_told(qdrant_url: str, name: str) -> None:
    chosen = MemoryOptions(timeout_s=2)
    with (
        closing(open_memory(qdrant_url, FINGERPRINT, collection=name, options=chosen)) as memory,
        closing(QdrantClient(url=qdrant_url, check_compatibility=False)) as owner,
    ):
        memory.upsert(pairs(10))
        limits = models.StrictModeConfig(enabled=True, max_query_limit=5)
        owner.update_collection(f"{name}--v1", strict_mode_config=limits)
        with pytest.raises(MemoryStoreError, match=r"(?i)limit exceeded"):
            memory.search(Search(pairs(1).image, by="image", read="text", k=6))
        limits = models.StrictModeConfig(enabled=True, read_rate_limit=1)
        owner.update_collection(f"{name}--v1", strict_mode_config=limits)
        with pytest.raises(MemoryOverloaded, match="asks to wait"):
            for _ in range(5):
                memory.search(Search(pairs(1).image, by="image", read="text", k=2))
