"""What the stand-in knows: collections in RAM, a key, and answers that a test has scripted."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from qdrant_client import QdrantClient, models


@dataclass
class Refusal(Exception):
    """An answer instead of the wanted one.

    Attributes:
        status: HTTP status; gRPC gets the code that Qdrant gives for it.
        text: what the server says.
        retry_after: seconds, for 429.
        times: how often it is given; later calls succeed.
        delay_s: how long the answer takes.
    """

    status: int
    text: str = ""
    retry_after: int | None = None
    times: int = 1_000_000
    delay_s: float = 0.0


@dataclass
class Engine:
    """Runs operations one at a time and remembers them.

    Attributes:
        key: what clients must send; None wants none.
        refusals: operation -> what it is answered instead.
        made: arguments of each ``create_collection``, by collection.
        seen: how often each operation was called, whatever came of it.
        last: arguments of the latest call of each operation.
        shown: collection -> what `get` says of its configuration in place of the client's own engine.
        folder: where collections are stored; None stores them in RAM.
    """

    key: str | None = None
    refusals: dict[str, Refusal] = field(default_factory=dict)
    made: dict[str, dict[str, Any]] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)
    last: dict[str, dict[str, Any]] = field(default_factory=dict)
    shown: dict[str, dict[str, Any]] = field(default_factory=dict)
    folder: str | None = None

    def __post_init__(self) -> None:
        place = {"path": self.folder} if self.folder else {"location": ":memory:"}
        self.client = QdrantClient(**place, force_disable_check_same_thread=True)
        self._lock = threading.RLock()

    def run(self, operation: str, key: str | None, action: Callable[[QdrantClient], Any], **told: Any) -> Any:
        """The result of an operation of the client's own engine, or the refusal that a server would give."""
        with self._lock:
            self.seen[operation] += 1
            self.last[operation] = told
            refusal = self.refusals.get(operation) or self.refusals.get("*")
            if refusal is not None and refusal.times > 0:
                refusal.times -= 1
            else:
                refusal = None
        if self.key is not None and key != self.key:
            raise Refusal(401, "Must provide an API key or an Authorization bearer token")
        if refusal is not None:
            time.sleep(refusal.delay_s)
            if refusal.status != 200:
                raise refusal
        with self._lock:
            try:
                return action(self.client)
            except Refusal:
                raise
            except Exception as error:
                raise _as_server(error) from error

    def get(self, name: str, key: str | None) -> models.CollectionInfo:
        """The description of a collection."""
        found = self.run("get", key, lambda client: client.get_collection(name)).model_dump()
        for part, values in self.shown.get(name, {}).items():
            found["config"][part] = {**(found["config"][part] or {}), **values} if values else values
        return models.CollectionInfo.model_validate(found)

    def query(self, name: str, key: str | None, searches: list[models.QueryRequest]) -> list[models.QueryResponse]:
        """The answers; parameters of an index are kept from the client's own engine, which would warn of them."""
        plain = [search.model_copy(update={"params": None}) for search in searches]
        found = self.run("query", key, lambda client: client.query_batch_points(name, plain), searches=searches)
        return list(found)

    def create(self, name: str, key: str | None, arguments: dict[str, Any]) -> bool:
        """Make a collection; what the engine ignores is remembered."""
        known = {"vectors_config", "metadata", "sparse_vectors_config"}

        def make(client: QdrantClient) -> bool:
            if client.collection_exists(name):
                raise Refusal(409, f"Wrong input: Collection `{name}` already exists!")
            self.made[name] = {k: v for k, v in arguments.items() if v is not None}
            return client.create_collection(name, **{k: v for k, v in arguments.items() if k in known})

        return bool(self.run("create_collection", key, make, name=name))

    def name_words(self, name: str, key: str | None, vector: str) -> models.UpdateResult:
        """Take a new sparse vector, weighed by IDF, into a collection."""
        words = models.SparseVectorNameConfig(sparse=models.SparseVectorConfig(modifier=models.Modifier.IDF))
        made = self.run("create_vector_name", key, lambda client: client.create_vector_name(name, vector, words))
        assert isinstance(made, models.UpdateResult)
        return made


def _as_server(error: Exception) -> Refusal:
    text = str(error)
    if "not found" in text:
        return Refusal(404, f"Not found: {text}")
    if "already exists" in text:
        return Refusal(409, f"Wrong input: {text}")
    return Refusal(400, f"Wrong input: {text}")
