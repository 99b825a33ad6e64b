"""The engine's own hybrid query: text search and vectors, fused by rank with a weight."""

from __future__ import annotations

import json
from typing import Any

from ..sources.indexes import Description, IndexAddress
from .search import RRF_K


def engine_query(address: IndexAddress | None, described: Description, weight: float, k: int) -> str:
    """Format the hybrid query of an engine; the user replaces QUERY by the text and VECTOR by its refined vector.

    ``weight`` is that of text search, from 0 to 1; vectors have the rest. Each search and the fusion have k results.
    """
    if address is None:
        address = IndexAddress("", "")
    text, rest = str(address.text), round(1 - weight, 3)
    match address.scheme:
        case "opensearch":
            fusion = {"technique": "rrf", "rank_constant": RRF_K, "parameters": {"weights": [weight, rest]}}
            pipeline = {"phase_results_processors": [{"score-ranker-processor": {"combination": fusion}}]}
            near = {"knn": {described.vector: {"vector": "VECTOR", "k": k}}}
            query = {"hybrid": {"pagination_depth": k, "queries": [{"match": {text: "QUERY"}}, near]}}
            return (
                f"PUT /_search/pipeline/reco\n{_json(pipeline)}\n\n"
                f"POST /{described.name}/_search?search_pipeline=reco\n{_json({'size': k, 'query': query})}"
            )
        case "elasticsearch":
            knn = {"field": described.vector, "query_vector": "VECTOR", "k": k, "num_candidates": 10 * k}
            retrievers = [
                {"retriever": {"standard": {"query": {"match": {text: "QUERY"}}}}, "weight": weight},
                {"retriever": {"knn": knn}, "weight": rest},
            ]
            rrf = {"rank_constant": RRF_K, "rank_window_size": k, "retrievers": retrievers}
            return f"POST /{described.name}/_search\n{_json({'size': k, 'retriever': {'rrf': rrf}})}"
        case "weaviate":
            return (
                f'collection.query.hybrid("QUERY", vector=VECTOR, query_properties=["{text}"], alpha={rest:g},\n'
                f"    fusion_type=HybridFusion.RANKED, limit={k})"
            )
        case "postgresql":
            name, table, words = address.id or "id", described.name, f"to_tsvector(coalesce({text}, ''))"
            far = f"{described.vector} {_OPERATORS[described.metric]} %(vector)s::vector"
            return (  # the inner ORDER BY ... LIMIT is what the index of vectors answers
                f"WITH t AS (SELECT {name}, row_number() OVER (ORDER BY score DESC) AS place FROM (\n"  # noqa: S608
                f"  SELECT {name}, ts_rank_cd({words}, q) AS score FROM {table}, websearch_to_tsquery(%(query)s) q\n"
                f"  WHERE {words} @@ q ORDER BY score DESC LIMIT {k}) hits),\n"
                f"v AS (SELECT {name}, row_number() OVER (ORDER BY far) AS place FROM (\n"
                f"  SELECT {name}, {far} AS far FROM {table} ORDER BY far LIMIT {k}) hits)\n"
                f"SELECT {name} FROM t FULL JOIN v USING ({name})\n"
                f"ORDER BY coalesce({weight:g} / ({RRF_K} + t.place), 0)\n"
                f"  + coalesce({rest:g} / ({RRF_K} + v.place), 0) DESC LIMIT {k}"
            )
        case _:
            return (
                "# this engine has no fusion by rank with weights: fuse the ids of two searches in your application\n"
                f"scores = Counter()\nfor share, ids in (({weight:g}, text_ids), ({rest:g}, vector_ids)):\n"
                f"    for place, id in enumerate(ids, 1):\n        scores[id] += share / ({RRF_K} + place)\n"
                f"best = [id for id, _ in scores.most_common({k})]"
            )


_OPERATORS = {"cosine": "<=>", "dot": "<#>", "euclid": "<->"}


def _json(body: Any) -> str:
    return json.dumps(body, indent=1).replace('"VECTOR"', "VECTOR")
