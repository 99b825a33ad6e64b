"""A schema of Vespa, which is only searched: ``vespa://host:8080/product?vector=image_clip&id=sku&profile=by_image``.

Vespa's query API does not tell the schema. So the dimension, and the fields, are read from some documents
(``/document/v1``), and the metric from the score of one search: it is the one by which that hit's vector has this
closeness.
"""

from __future__ import annotations

import json
import math
import re
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np

from ..config import Settings
from ..data.cells import Vector
from ..errors import ConfigError, EngineError, EngineUnavailable
from ..proxies import proxy_of, usable_environment
from ..values import did_you_mean
from .address import IndexAddress
from .asking import ask
from .base import Description, Effort, IndexHit, LooksOnce, Page, Question, Similarity
from .documents import check_fields, make_hit, pick_vector, query_of
from .rest import cannot_reach
from .template import fill

CANDIDATES = 100
"""``targetHits`` of a search by the index, as in ``examples/configs/vespa/query.json``."""
_LOOKED = 20
"""Documents that are read to know the fields."""
_BUSY = (429, 502, 503, 504)
_BUSY_CODES = (0, 10, 11, 12)
"""Vespa's own: no backend in service, no connection to one, no answer of one, timeout."""
_METRICS: Mapping[str, Similarity] = {
    "prenormalized-angular": "cosine",
    "angular": "cosine",
    "dotproduct": "dot",
    "euclidean": "euclid",
}
_FLOATS = ("float", "double", "bfloat16")
_TYPE = re.compile(r"tensor(?:<(?P<cells>\w+)>)?\((?P<dimensions>[^)]*)\)")
_NAME = re.compile(r"[A-Za-z_][\w.]*")
_AGREES = 3e-3
"""How well a score and the closeness that a vector should have agree, with a query rounded to bfloat16."""
_SEED = 20_021
"""Of a query that is near to nothing."""
_NUMBERS = re.compile(r"\[[-+.,\deE ]{40,}\]?")


class _Refused(EngineError):
    """An answer that says no, other than for the load."""


@dataclass(frozen=True)
class _Schema:
    """What is known of a schema."""

    vector: str
    dimension: int
    metric: str  # one of `_METRICS`
    compression: str
    fields: tuple[str, ...]


class VespaIndex(LooksOnce[_Schema]):
    """A schema; see :class:`~reco_plugin.engines.base.Engine`. It is searched, not scanned."""

    def __init__(self, address: IndexAddress, settings: Settings) -> None:
        super().__init__()
        address.only("profile", "text_profile", "input", "dimension", "metric", "cert_file")
        place, own = address.place, address.options
        if not _NAME.fullmatch(address.path):
            raise ConfigError(f"{place} names no schema: vespa://HOST:{address.port}/SCHEMA")
        for option in ("vector", "id", "text", "image"):
            if (name := getattr(address, option)) is not None and not _NAME.fullmatch(name):
                raise ConfigError(f"{place}: {option}={name!r} is no name of a field")
        if not _NAME.fullmatch(tensor := own.get("input", "q")):
            raise ConfigError(f"{place}: input={tensor!r} is no name of a tensor")
        if address.changed is not None:
            raise ConfigError(f"{place}: Vespa is only searched here, so no changes are read: leave changed= out")
        if (metric := own.get("metric")) is not None and metric not in _METRICS:
            raise ConfigError(f"{place}: metric={metric!r}: {did_you_mean(metric, _METRICS)}")
        dimension = own.get("dimension", "1")
        if not dimension.isdigit() or int(dimension) < 1:
            raise ConfigError(f"{place}: dimension={dimension!r} must be a whole number from 1")
        if "dimension" in own and address.vector is None:
            raise ConfigError(f"{place}: dimension= goes with vector=NAME")
        if "cert_file" in own and not address.tls:
            raise ConfigError(f"{place}: cert_file= is sent by TLS: add tls=1")
        self._address = address
        self._input = tensor
        with usable_environment():
            self._client = httpx.Client(
                base_url=address.url,
                timeout=address.timeout_s + 1,  # Vespa's own ends first, and says more
                headers=_bearer(address, settings),
                auth=_user(address, settings),
                verify=_trust(address),
            )

    def describe(self) -> Description:
        """See :meth:`reco_plugin.engines.base.Engine.describe`."""
        known = self._known()
        yql = f"select * from {self._address.path} where true"  # noqa: S608
        counted = self._query({"yql": yql, "hits": 0, "ranking": "unranked", **self._in_time()})
        return Description(
            engine=f"Vespa {self._version()}".strip(),
            name=self._address.path,
            documents=int(counted.get("fields", {}).get("totalCount", 0)),
            vector=known.vector,
            dimension=known.dimension,
            metric=_METRICS[known.metric],
            index=f"as the schema has it, {known.metric}",
            compression=known.compression,
            effort=Effort("targetHits", CANDIDATES, (200, 500, 1000, 5000)),
            fields=known.fields,
            searches_text=self._address.text is not None,
            scans=False,
        )

    def scan(self, *, vectors: bool = True, size: int = 1000) -> Iterator[Page]:
        """Refuse: Vespa is only searched.

        Raises:
            EngineError: always.
        """
        raise EngineError(
            f"{self._address.place} is only searched, not read. To fill a memory, write its documents to a file by "
            "`vespa visit`, see docs/engines/vespa.md, and give that as the source"
        )

    def search(self, question: Question) -> Sequence[IndexHit]:
        """See :meth:`reco_plugin.engines.base.Engine.search`; a filter is YQL, a template the JSON of a query."""
        if question.template is not None:
            return self._by_template(question)
        if question.vector is None:
            return self._by_words(question)
        known = self._known()
        vector = query_of(self._address, question.vector, known.dimension)
        scored = _score_of(known.metric)
        return [self._hit(hit, scored(_relevance(hit))) for hit in self._nearest(known.vector, vector, question)]

    def close(self) -> None:
        """See :meth:`reco_plugin.engines.base.Engine.close`."""
        self._client.close()

    def _nearest(self, field: str, vector: Vector, question: Question) -> list[dict[str, Any]]:
        if question.exact:
            how = f"targetHits:{question.k},approximate:false"
        else:
            how = f"targetHits:{max(question.k, question.effort or CANDIDATES)}"
        where = f"({{{how}}}nearestNeighbor({field}, {self._input}))"
        body = {f"input.query({self._input})": np.asarray(vector, np.float32).tolist()}
        return self._hits(question, where, self._address.options.get("profile"), body)

    def _by_words(self, question: Question) -> list[IndexHit]:
        field, words = self._address.text, question.text or ""
        if field is None:
            raise ConfigError(f"{self._address.place} names no field of texts: add text=NAME to search it by words")
        if not any(letter.isalnum() for letter in words):  # Vespa refuses a query without a word
            return []
        where = f'({{defaultIndex:"{field}",grammar:"weakAnd"}}userInput(@words))'
        profile = self._address.options.get("text_profile", "default")
        hits = self._hits(question, where, profile, {"words": words})
        return [self._hit(hit, _relevance(hit)) for hit in hits]

    def _by_template(self, question: Question) -> list[IndexHit]:
        vector = [] if question.vector is None else np.asarray(question.vector, np.float32).tolist()
        try:
            body = json.loads(fill(question, vector=json.dumps(vector), quote=json.dumps))
        except ValueError as error:
            raise ConfigError(f"the template is no JSON of a query of Vespa: {error}") from None
        if not isinstance(body, dict) or "yql" not in body:
            raise ConfigError('the template is no JSON of a query of Vespa, as in {"yql": "select …", …}')
        hits = _children(self._query(body))
        return [self._hit(hit, _relevance(hit)) for hit in hits][: question.k]

    def _hits(self, question: Question, where: str, profile: str | None, more: dict[str, Any]) -> list[dict[str, Any]]:
        """Hits of a query that is ours, best first."""
        named = (self._address.id, self._address.text, self._address.image)
        shown = ", ".join(dict.fromkeys(["documentid", *(name for name in named if name is not None)]))
        filtered = f" and ({question.where})" if question.where else ""
        body = {
            "yql": f"select {shown} from {self._address.path} where {where}{filtered}",  # noqa: S608
            "hits": question.k,
            **self._in_time(),
            **({"ranking": profile} if profile else {}),
            **more,
        }
        return _children(self._query(body))

    def _in_time(self) -> dict[str, Any]:
        """Vespa's own 500 ms are short for the first query; where time runs out it would leave documents out."""
        return {"timeout": f"{self._address.timeout_s:g}s", "ranking.softtimeout.enable": False}

    def _hit(self, hit: Mapping[str, Any], score: float) -> IndexHit:
        fields: Mapping[str, Any] = hit.get("fields", {})
        name = self._address.id
        id_ = fields.get(name) if name else fields.get("documentid") or _document_id(hit)
        if id_ is None or id_ == "":
            raise EngineError(
                f"{self._address.place}: a hit has no {name or 'documentid'!r}, by which it is known: it must be in "
                "the summary of the schema, and a template must select it"
            )
        return make_hit(self._address, id_, score, fields)

    def _look(self) -> _Schema:
        """The schema as the address says, and else as some documents show it."""
        address, own = self._address, self._address.options
        if "dimension" in own:
            metric = own.get("metric", "prenormalized-angular")
            return _Schema(str(address.vector), int(own["dimension"]), metric, "", ())
        documents = self._documents()
        fields = {name: value for one in documents for name, value in one.get("fields", {}).items()}
        if not fields:
            raise EngineError(
                f"{address.place}: {address.path} has no documents to read its fields from: add "
                "vector=NAME&dimension=NUMBER, if it is not empty"
            )
        name = f"the first {len(documents)} documents of {address.path}"
        check_fields(address, fields, name)
        kinds = {field: _kind(value) for field, value in fields.items()}
        dense = [field for field, kind in kinds.items() if kind.dimension]
        vector = pick_vector(address, dense, {field: kinds[field].words for field in fields}, name)
        metric = own.get("metric") or self._measured(vector, kinds[vector].dimension)
        compression = "bfloat16" if kinds[vector].cells == "bfloat16" else ""
        return _Schema(vector, kinds[vector].dimension, metric, compression, tuple(fields))

    def _documents(self) -> list[dict[str, Any]]:
        """Some documents of the schema."""
        params = {"selection": self._address.path, "wantedDocumentCount": str(_LOOKED)}
        try:
            said = self._ask("GET", "/document/v1/", params=params)
        except _Refused as error:
            raise EngineError(
                f"{error}. So no document shows which field holds the vectors: add vector=NAME&dimension=NUMBER, and "
                "metric= where it is not prenormalized-angular"
            ) from None
        found: list[dict[str, Any]] = said.get("documents", [])
        return found[:_LOOKED]

    def _measured(self, vector: str, dimension: int) -> str:
        """The metric by which a hit's vector has the score that it has."""
        place = self._address.place
        # far from all vectors, where metrics differ
        query = np.random.default_rng(_SEED).normal(size=dimension).astype(np.float32)
        query /= np.linalg.norm(query)
        hits = self._nearest(vector, query, Question(query, k=10))
        if not hits:
            raise EngineError(f"{place}: a search by {vector!r} found nothing")
        score = _relevance(hits[-1])  # the farthest of them, since the metrics agree on what is equal
        id_ = hits[-1].get("fields", {}).get("documentid") or _document_id(hits[-1])
        said = self._ask("GET", _path_of(place, id_), params={})
        stored = _values(said.get("fields", {}).get(vector))
        if stored.shape != query.shape:
            raise EngineError(f"{place}: the document {id_!r} has no vector of {dimension} dimensions in {vector!r}")
        expected = {metric: _closeness(metric, query, stored) for metric in _METRICS}
        best = min(expected, key=lambda metric: abs(expected[metric] - score))
        if abs(expected[best] - score) > _AGREES * max(1.0, abs(score)):
            own = self._address.options.get("profile", "default")
            raise EngineError(
                f"{place}: the profile {own!r} scores {score:.4g}, which is no closeness of {vector!r} by any metric: "
                f"name one whose first phase is closeness(field, {vector}), profile=NAME. A ranking of your own is "
                "compared by a template"
            )
        return best

    def _version(self) -> str:
        try:
            return str(self._ask("GET", "/state/v1/version", params={}).get("version", ""))
        except _Refused:  # where only searches are let through
            return ""

    def _query(self, body: dict[str, Any]) -> dict[str, Any]:
        """The root of an answer, after its errors and what it left out were looked at."""
        place = self._address.place

        def asked() -> dict[str, Any]:
            root: dict[str, Any] = self._send("POST", "/search/", body=body).get("root", {})
            if errors := root.get("errors"):
                raise _error_of(place, 200, errors)
            coverage = root.get("coverage", {})
            degraded = [why for why, there in coverage.get("degraded", {}).items() if there and why != "match-phase"]
            if degraded:  # match-phase is the profile's own
                raise EngineUnavailable(
                    f"{place} searched only {coverage.get('coverage', '?')} % of the documents "
                    f"({', '.join(degraded)}): {_cure(degraded)}"
                )
            return root

        return ask(asked)

    def _ask(self, method: str, path: str, params: Mapping[str, str]) -> dict[str, Any]:
        return ask(lambda: self._send(method, path, params=params))

    def _send(
        self, method: str, path: str, *, body: Any = None, params: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        place = self._address.place
        try:
            answer = self._client.request(method, path, json=body, params=params)
        except httpx.TimeoutException as error:
            raise cannot_reach(place, self._address.timeout_s, error, late=True) from None
        except httpx.TransportError as error:
            if isinstance(error.__cause__, ssl.SSLError) or "CERTIFICATE" in str(error):
                raise EngineError(f"{place}: TLS fails: {error}. An authority of your own is ca_file=") from None
            away = cannot_reach(place, self._address.timeout_s, error, late=False)
            raise EngineUnavailable(f"{away}{proxy_of(self._address.url)}") from None
        try:
            said = answer.json()
        except ValueError:
            said = None
        if answer.is_success and isinstance(said, dict):
            return said
        if answer.is_success:
            raise EngineError(f"{place} does not answer as Vespa does, but with {answer.headers.get('content-type')}")
        errors = said.get("root", {}).get("errors") if isinstance(said, dict) else None
        message = said.get("message") if isinstance(said, dict) else None
        raise _error_of(place, answer.status_code, errors or [{"message": message or answer.reason_phrase}])


@dataclass(frozen=True)
class _Kind:
    """What a field holds."""

    words: str
    dimension: int = 0  # 0: no vectors that can be compared with ours
    cells: str = ""


def _kind(value: Any) -> _Kind:
    """What a value in a document says of its field."""
    if not isinstance(value, Mapping) or "type" not in value:
        return _Kind(type(value).__name__)
    said = _TYPE.fullmatch(str(value["type"]).replace(" ", ""))
    if said is None:
        return _Kind(str(value["type"]))
    cells, dimensions = said["cells"] or "double", said["dimensions"].split(",")
    indexed = re.fullmatch(r"\w+\[(\d+)\]", dimensions[0])
    if len(dimensions) > 1:
        return _Kind("several vectors a document")
    if indexed is None or cells not in _FLOATS:
        return _Kind(f"a vector of {cells}" if indexed else "a sparse vector")
    return _Kind(f"vectors of {cells}", int(indexed[1]), cells)


def _values(value: Any) -> Vector:
    """The numbers (D,) of a tensor in a document; (0,) where there are none."""
    if isinstance(value, Mapping):
        value = value.get("values") or [cell["value"] for cell in value.get("cells", []) if isinstance(cell, Mapping)]
    return np.asarray(value if isinstance(value, list) else [], np.float32)


def _children(root: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Hits, without groups."""
    return [hit for hit in root.get("children", []) if not str(hit.get("id", "")).startswith("group:")]


def _relevance(hit: Mapping[str, Any]) -> float:
    return float(hit.get("relevance", 0.0))


def _document_id(hit: Mapping[str, Any]) -> str | None:
    id_ = str(hit.get("id", ""))
    return id_ if id_.startswith("id:") else None


def _path_of(place: str, id_: str | None) -> str:
    """Where the document API has a document of this id, as in ``id:shop:product::7``."""
    said = re.fullmatch(r"id:([^:]*):([^:]*):([^:]*):(.*)", id_ or "", re.DOTALL)
    if said is None:
        raise EngineError(f"{place}: a hit has no documentid, by which its vector is read: add metric=NAME")
    namespace, kind, group, name = (quote(part, safe="") for part in said.groups())
    if not group:
        return f"/document/v1/{namespace}/{kind}/docid/{name}"
    where, _, value = said[3].partition("=")
    return f"/document/v1/{namespace}/{kind}/{'number' if where == 'n' else 'group'}/{quote(value, safe='')}/{name}"


def _closeness(metric: str, query: Vector, stored: Vector) -> float:
    """What Vespa's ``closeness(field, …)`` is of a query (D,) of norm 1 and a document's vector (D,).

    Source: https://docs.vespa.ai/en/reference/schemas/schemas.html, distance-metric.
    """
    dot = float(query @ stored)
    match metric:
        case "dotproduct":
            return dot
        case "prenormalized-angular":
            return 1 / (2 - dot)
        case "angular":
            cosine = dot / max(float(np.linalg.norm(stored)), 1e-12)
            return 1 / (1 + math.acos(min(1.0, max(-1.0, cosine))))
    return 1 / (1 + float(np.linalg.norm(query - stored)))


def _score_of(metric: str) -> Callable[[float], float]:
    """From ``closeness`` to the metric's own score: cosine, product, or minus the distance."""

    def distance(closeness: float) -> float:
        return 1 / closeness - 1 if closeness > 0 else math.inf

    match metric:
        case "dotproduct":
            return lambda closeness: closeness
        case "prenormalized-angular":
            return lambda closeness: 1 - distance(closeness)
        case "angular":
            return lambda closeness: math.cos(min(distance(closeness), math.pi))
    return lambda closeness: -distance(closeness)


def _error_of(place: str, status: int, errors: Sequence[Mapping[str, Any]]) -> EngineError:
    """The error of an answer; with 200, too, Vespa may say that something failed."""
    first = errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else {"message": errors}
    parts = (str(first[part]) for part in ("summary", "message") if first.get(part))
    words, code = _NUMBERS.sub("[…]", ": ".join(parts))[:500], first.get("code")
    if "query(" in words and ("tensor" in words or "profile" in words):
        words = f"{words.rstrip('.')}. profile= names the rank profile that declares the query tensor, input= that one"
    if status == 401:
        return _Refused(
            f"{place} refuses (401): set RECO_INDEX_API_KEY to a token, or RECO_INDEX_USER and RECO_INDEX_PASSWORD, of "
            "one who may read; a certificate of yours is cert_file="
        )
    if status == 403:
        return _Refused(
            f"{place} forbids it (403): {words}; the token or certificate (cert_file=) needs the permission `read`"
        )
    if status == 504 or code == 12:
        return EngineUnavailable(f"{place} did not answer in its time ({status}): {words}. Give timeout_s= more")
    if status in _BUSY or code in _BUSY_CODES:
        return EngineUnavailable(f"{place} is overloaded or not ready ({status}): {words}")
    return _Refused(f"{place} refuses ({status}): {words}")


def _cure(degraded: Sequence[str]) -> str:
    if any("timeout" in why for why in degraded):
        return "give timeout_s= more, or in a template `timeout`"
    return "content nodes are away, or documents move between them"


def _bearer(address: IndexAddress, settings: Settings) -> dict[str, str]:
    key = settings.index_api_key
    if key is None or address.user or settings.index_user:
        return {}
    return {"authorization": f"Bearer {key.get_secret_value()}"}


def _user(address: IndexAddress, settings: Settings) -> httpx.BasicAuth | None:
    """A user of a proxy before Vespa, which knows none itself."""
    user, password = address.user or settings.index_user, settings.index_password
    return httpx.BasicAuth(user, password.get_secret_value() if password else "") if user else None


def _trust(address: IndexAddress) -> ssl.SSLContext | bool:
    """What TLS trusts, and shows."""
    if not address.tls:
        return True
    try:
        context = ssl.create_default_context(cafile=address.ca_file)
        if "cert_file" in address.options:
            context.load_cert_chain(address.options["cert_file"])  # a PEM of the certificate and its key
    except OSError as error:  # also ssl.SSLError
        raise ConfigError(f"{address.place}: ca_file= or cert_file= cannot be read: {error}") from None
    return context
