"""Indexes of OpenSearch and Elasticsearch: the REST API that both have of a common ancestor. Each adds a module.

A scan goes by ``_seq_no``, the number of a document's last change, and not by a point in time, which expires while a
slow reader encodes. A document that changes meanwhile gets a higher number and is read again.
"""

from __future__ import annotations

import base64
import json
import re
import ssl
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import httpx
import numpy as np

from ..config import Settings
from ..errors import ConfigError, EngineError, EngineTimeout, EngineUnavailable
from ..proxies import proxy_of, usable_environment
from ..values import did_you_mean
from .address import IndexAddress
from .asking import ask
from .base import Description, Document, IndexHit, LooksOnce, Page, Question, Similarity
from .documents import check_fields, make_document, make_hit, pick_vector, query_of

MOST = 10_000
"""Hits of one search, and candidates of one, that both engines allow."""
NOT_INDEXED = "not indexed"
_BUSY = (429, 502, 503, 504)
Body = dict[str, Any]


class Refusal(EngineError):
    """An answer that is no success, with its status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class VectorField:
    """What a mapping says of a field of vectors."""

    dimension: int
    metric: Similarity
    index: str  # how it is searched, for people; see :attr:`Description.index`
    score: Callable[[float], float]  # of a search by the index -> the metric's own
    method: str = ""  # what the engine's module needs to ask, such as the library that searches


@dataclass(frozen=True)
class KnownIndex:
    """What the engine says of an index."""

    name: str  # of the index itself, where the address names an alias
    fields: Mapping[str, str]  # dotted name -> type
    kept: Mapping[str, str]  # alias or sub-field, which no document keeps -> the field that it is read from
    vector: str
    field: VectorField
    others: tuple[str, ...]  # further fields of vectors
    shards: int
    version: tuple[int, ...]  # of the engine; () where it does not say
    hidden: bool  # its vectors cannot be read back


class DocumentIndex(LooksOnce[KnownIndex]):
    """An index of documents; see :class:`~reco_plugin.engines.base.Engine`."""

    engine: str  # its name
    kind: str  # what it calls the type of a field of vectors
    key: str  # what stands before a key in the header

    def __init__(self, address: IndexAddress, settings: Settings) -> None:
        super().__init__()
        address.only()
        if not address.path or "/" in address.path:
            raise ConfigError(f"{address.place} names no index: {address.scheme}://HOST:{address.port}/INDEX")
        self._address, self._settings = address, settings
        user, password, key = address.user or settings.index_user, settings.index_password, settings.index_api_key
        bearer = key is not None and not user
        with usable_environment():
            self._client = httpx.Client(
                base_url=address.url,
                timeout=address.timeout_s,
                headers={"authorization": f"{self.key} {key.get_secret_value()}"} if key and bearer else None,
                auth=(user, password.get_secret_value() if password else "") if user else None,
                verify=_trust(address),
            )

    def close(self) -> None:
        """See :meth:`reco_plugin.engines.base.Engine.close`."""
        self._client.close()

    def _send(self, method: str, path: str, body: Body | None, params: Mapping[str, str]) -> Any:
        """One request; the JSON of its answer."""
        place, seconds = self._address.place, self._address.timeout_s
        try:
            answer = self._client.request(method, path, json=body, params=params)
        except httpx.TimeoutException:
            raise EngineTimeout(f"{place} did not answer within {seconds:g} s: give timeout_s= more") from None
        except httpx.TransportError as error:
            if "SSL" in str(error):
                raise EngineError(f"{place}: TLS fails: {error}. An authority of your own is ca_file=") from None
            through = proxy_of(self._address.url)
            raise EngineUnavailable(
                f"{place} cannot be reached: {error}. Does it speak TLS? Then add tls=1, or tls=0{through}"
            ) from None
        try:
            said = answer.json()
        except ValueError:
            said = answer.text
        if not answer.is_success:
            raise _refusal(place, answer.status_code, said)
        if not isinstance(said, dict | list):
            raise EngineError(f"{place} is no {self.engine}: it answers no JSON")
        return said

    @abstractmethod
    def _read(self, field: Mapping[str, Any], settings: Mapping[str, Any], version: tuple[int, ...]) -> VectorField:
        """Make sense of a field of vectors in a mapping."""

    @abstractmethod
    def _nearest(self, known: KnownIndex, question: Question, vector: list[float], where: Any) -> Body:
        """The body of a search by the index, as the pages of the documentation have it."""

    def _source(self, known: KnownIndex, excluded: Sequence[str]) -> Body:
        """What of a document to send."""
        return {"excludes": list(excluded)}

    def describe(self) -> Description:
        """See :meth:`reco_plugin.engines.base.Engine.describe`."""
        known, path = self._known(), self._address.path
        counted = self._ask("POST", f"/{path}/_count", {"query": {"match_all": {}}})
        return Description(
            engine=" ".join([self.engine, ".".join(map(str, known.version))]).strip(),
            name=known.name,
            documents=int(counted["count"]),
            vector=known.vector,
            dimension=known.field.dimension,
            metric=known.field.metric,
            index=known.field.index,
            fields=tuple(known.fields),
            searches_text=self._address.text is not None,
        )

    def scan(self, *, vectors: bool = True, size: int = 1000) -> Iterator[Page]:
        """See :meth:`reco_plugin.engines.base.Engine.scan`."""
        known = self._known()
        if vectors and known.hidden:
            raise EngineError(
                f"{self._address.place} keeps no {known.vector!r} in its documents (_source), so the vectors can be "
                "searched, but not read back; texts and pictures can be read"
            )
        return self._pages(known, vectors, size)

    def _pages(self, known: KnownIndex, vectors: bool, size: int) -> Iterator[Page]:
        """All documents, by the number of their last change."""
        done: int | None = None
        body: Body = {
            "size": max(1, min(size, MOST)),
            "sort": [{"_seq_no": "asc"}],
            "track_total_hits": False,
            "_source": self._source(known, known.others if vectors else (*known.others, known.vector)),
        }
        while True:
            reached = [{"range": {"_seq_no": {"gt": done}}}] if done is not None else []
            hits = self._hits(body | {"query": {"bool": {"filter": reached}}}, preference="reco-scan")
            if len(hits) == body["size"] and known.shards > 1:  # each shard counts: one more may have the last number
                complete = [hit for hit in hits if hit["sort"] != hits[-1]["sort"]]
                if not complete and body["size"] < MOST:
                    body["size"] = min(2 * body["size"], MOST)
                    continue
                hits = complete or hits
            if not hits:
                return
            done = int(hits[-1]["sort"][0])
            yield Page(tuple(self._document(known, hit, vectors) for hit in hits))

    def search(self, question: Question) -> Sequence[IndexHit]:
        """See :meth:`reco_plugin.engines.base.Engine.search`; a filter is a clause of the query DSL, or a list."""
        known = self._known()
        score: Callable[[float], float] = float
        where = self._parsed(question.where) if question.where else []
        if question.vector is None:
            body: Body = {"query": {"bool": {"must": self._by_text(question), "filter": where}}}
        else:
            vector = query_of(self._address, question.vector, known.field.dimension).tolist()
            if known.field.index == NOT_INDEXED:
                raise EngineError(f"{self._address.place}: its vectors can be read, but not searched: index them")
            body, score = self._nearest(known, question, vector, where), known.field.score
        body |= {"size": question.k, "_source": False}
        wanted = (self._address.id, self._address.text, self._address.image)
        shown = [name for name in wanted if name is not None and name != "_id"]
        hits = self._hits(body | ({"fields": shown} if shown else {}))
        return [self._hit(known, hit, score) for hit in hits]

    def _ask(self, method: str, path: str, body: Body | None = None, **params: str) -> Any:
        return ask(lambda: self._send(method, path, body, params))

    def _hits(self, body: Body, **params: str) -> list[Body]:
        """What a search finds, in all shards: half of an index would look like an index of half the quality."""
        path = f"/{self._address.path}/_search"
        answer = self._ask("POST", path, body, allow_partial_search_results="false", **params)
        if answer.get("timed_out"):
            raise EngineTimeout(f"{self._address.place} did not finish a search in time")
        found: list[Body] = answer["hits"]["hits"]
        return found

    def _by_text(self, question: Question) -> Body:
        if self._address.text is None:
            raise ConfigError(f"{self._address.place} names no field of texts: add text=NAME to search it by words")
        return {"match": {self._address.text: question.text or ""}}

    @staticmethod
    def _parsed(where: str) -> Any:
        try:
            return json.loads(where)
        except ValueError as error:
            raise ConfigError(f"the filter is no JSON, as this engine wants it: {error}") from None

    def _look(self) -> KnownIndex:
        """The index, its fields and settings, as the engine has them; a user who may only read may lack the latter."""
        path = self._address.path
        try:
            mappings = self._ask("GET", f"/{path}/_mapping")
        except Refusal as refused:
            if refused.status != 404:
                raise
            raise EngineError(f"{self._address.place} has no index {path!r}: {self._similar()}") from None
        if len(mappings) != 1:
            names = " and ".join(map(repr, sorted(mappings)[:3])) or "no index"
            raise EngineError(
                f"{self._address.place} stands for {names}: name one of them, since their vectors need not be of one "
                "encoder"
            )
        ((name, said),) = mappings.items()
        settings = self._allowed("GET", f"/{path}/_settings", flat_settings="true").get(name, {}).get("settings", {})
        version = self._version()
        properties = said["mappings"].get("properties", {})
        fields, nested = dict[str, Body](), set[str]()
        _walk(properties, "", False, fields, nested)
        kept = {name: str(field["path"]) for name, field in fields.items() if field.get("type") == "alias"}
        kept |= {f"{name}.{part}": name for name, field in fields.items() for part in field.get("fields", {})}
        types = {field: str(kind.get("type", "object")) for field, kind in fields.items()}
        check_fields(self._address, [*types, "_id"], name)
        dense = [field for field, kind in types.items() if kind == self.kind and field not in nested]
        others = {
            field: f"{kind}{' in nested documents, of which one document has several' if field in nested else ''}"
            for field, kind in types.items()
            if field not in dense
        }
        vector = pick_vector(self._address, dense, others, name)
        source = said["mappings"].get("_source", {})
        hidden = source.get("enabled") is False or any(fnmatchcase(vector, rule) for rule in source.get("excludes", ()))
        return KnownIndex(
            name=name,
            fields=types,
            kept=kept,
            vector=vector,
            field=self._read(fields[vector], settings, version),
            others=tuple(field for field, kind in types.items() if kind == self.kind and field != vector),
            shards=int(settings.get("index.number_of_shards", 2)),
            version=version,
            hidden=hidden,
        )

    def _version(self) -> tuple[int, ...]:
        """Of the engine; () where this user may not know it."""
        number = self._allowed("GET", "/").get("version", {}).get("number", "")
        if not number:
            nodes = self._allowed("GET", "/_nodes/_local", filter_path="nodes.*.version").get("nodes", {})
            number = next((str(node["version"]) for node in nodes.values()), "")
        return tuple(map(int, re.findall(r"\d+", number.partition("-")[0])))

    def _allowed(self, method: str, path: str, **params: str) -> Body:
        """An answer, or nothing where this user may not ask, or a proxy lets it not through."""
        try:
            answer: Body = self._ask(method, path, None, **params)
        except Refusal as refused:
            if refused.status not in (403, 404, 405):
                raise
            return {}
        return answer

    def _similar(self) -> str:
        try:
            rows = self._ask("GET", "/_cat/indices", None, format="json", h="index", expand_wildcards="open")
            aliases = self._ask("GET", "/_cat/aliases", None, format="json", h="alias")
        except EngineError:
            return "its name may be another, or this user may not see it"
        names = {row["index"] for row in rows} | {row["alias"] for row in aliases}
        return did_you_mean(self._address.path, sorted(name for name in names if not name.startswith(".")))

    def _document(self, known: KnownIndex, hit: Body, vectors: bool) -> Document:
        source: Body = hit.get("_source", {})
        sent = _take(source, known.vector)
        id_, problem, own = hit["_id"], None, self._address.id
        if own is not None and own != "_id":
            value = _get(source, known.kept.get(own, own))
            if isinstance(value, str | int | float) and not isinstance(value, bool):
                id_ = value
            else:
                problem = f"it has no single {own!r}, by which it is known"
        vector = None
        if vectors and sent is not None:
            try:
                vector = np.asarray(sent, np.float32)
            except (TypeError, ValueError):
                vector = np.empty(0, np.float32)
            if vector.shape != (known.field.dimension,):
                problem = f"its vector has the shape {vector.shape}, not ({known.field.dimension},)"
                vector = None
        for name in (self._address.text, self._address.image):
            if name is not None:
                source[name] = self._shown(known, name, _take(source, known.kept.get(name, name)))
        return make_document(self._address, id_, vector, source, problem)

    def _hit(self, known: KnownIndex, hit: Body, score: Callable[[float], float]) -> IndexHit:
        fields: Body = hit.get("fields", {})
        shown = {name: self._shown(known, name, value) for name, value in fields.items()}
        id_ = shown.get(self._address.id or "") or hit["_id"]
        return make_hit(self._address, id_, score(float(hit["_score"] or 0)), shown)

    @staticmethod
    def _shown(known: KnownIndex, name: str, value: Any) -> Any:
        """The value of a field: of several texts all, of a picture in base64 its bytes."""
        if isinstance(value, list):
            value = ", ".join(str(item) for item in value if item not in (None, ""))
        if known.fields.get(name) == "binary" and isinstance(value, str):
            try:
                return base64.b64decode(value, validate=True)
            except ValueError:
                return value
        return value


def _refusal(place: str, status: int, said: Any) -> EngineError:
    """The error of an answer that is no success.

    Args:
        place: of the index.
        status: of HTTP.
        said: the body of the answer.
    """
    words = _reason(said)
    if status in _BUSY:
        return EngineUnavailable(f"{place} is overloaded or not ready ({status}): {words}")
    if status == 401:
        return Refusal(
            f"{place} refuses (401): set RECO_INDEX_USER and RECO_INDEX_PASSWORD, or RECO_INDEX_API_KEY, to those of a "
            "user who may read",
            status,
        )
    if status == 403:
        return Refusal(
            f"{place} forbids it (403): {words}; the user needs `read` and `view_index_metadata` on the index", status
        )
    return Refusal(f"{place} refuses ({status}): {words}", status)


def _trust(address: IndexAddress) -> ssl.SSLContext | bool:
    try:
        return ssl.create_default_context(cafile=address.ca_file) if address.ca_file else True
    except OSError as error:  # also ssl.SSLError
        raise ConfigError(f"{address.place}: ca_file={address.ca_file!r} cannot be read: {error}") from None


def _reason(said: Any) -> str:
    """The innermost reason that an engine gives."""
    error = said.get("error", said) if isinstance(said, dict) else said
    if not isinstance(error, dict):
        return str(error)[:300]
    shards = error.get("failed_shards") or []
    inner = shards[0].get("reason", {}) if shards and isinstance(shards[0], dict) else {}
    causes = [inner, *(error.get("root_cause") or []), error]
    words = [cause.get("reason") for cause in causes if isinstance(cause, dict) and cause.get("reason")]
    return str(words[0] if words else error)[:500]


def _walk(properties: Mapping[str, Any], above: str, inside: bool, fields: dict[str, Body], nested: set[str]) -> None:
    """Fields of a mapping by their dotted names, and those that lie in nested documents."""
    for name, field in properties.items():
        dotted = f"{above}{name}"
        within = inside or field.get("type") == "nested"
        if "properties" not in field or "type" in field:
            fields[dotted] = field
        if within:
            nested.add(dotted)
        for further in ("properties", "fields"):
            _walk(field.get(further, {}), f"{dotted}.", within, fields, nested)


def _get(source: Any, name: str | None) -> Any:
    """The value of a dotted name, which documents write nested or flat."""
    if name is None or not isinstance(source, dict):
        return None
    if name in source:
        return source[name]
    first, _, rest = name.partition(".")
    return _get(source.get(first), rest) if rest else None


def _take(source: Body, name: str) -> Any:
    """The same, removed from the document."""
    if name in source:
        return source.pop(name)
    first, _, rest = name.partition(".")
    if not rest or not isinstance(source.get(first), dict):
        return None
    value = _take(source[first], rest)
    if not source[first]:
        del source[first]
    return value
