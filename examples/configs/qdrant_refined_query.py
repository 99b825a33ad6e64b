"""Search a Qdrant collection of CLIP vectors of images that you have, with refined text queries: one more call.

reco serve --model my_model --memory ./memory
python examples/configs/qdrant_refined_query.py "a red fox" --collection products
"""

from __future__ import annotations

import argparse
from typing import Any

from qdrant_client import QdrantClient

from reco_plugin.client import Client


def search(
    reco: Client,
    qdrant: QdrantClient,
    collection: str,
    text: str,
    *,
    limit: int = 10,
    least: float | None = None,
    **search: Any,
) -> list[Any]:
    """Points nearest to a text; ``using`` and ``query_filter`` are passed to Qdrant.

    ``least`` is a threshold of plain CLIP cosines, if you have one. If your application makes CLIP vectors itself, pass
    them to ``reco.refine`` in place of the first line.
    """
    refined = reco.embed([text], modality="text", target="image")
    if least is not None:
        search["score_threshold"] = float(refined.refined_scores(least)[0])  # the threshold for this refined query
    return qdrant.query_points(collection, query=refined.vectors[0].tolist(), limit=limit, **search).points


def main() -> None:
    """Print the points nearest to a text."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("text")
    parser.add_argument("--collection", required=True)
    parser.add_argument("--qdrant", default="http://localhost:6333")
    parser.add_argument("--reco", default="http://localhost:8080")
    parser.add_argument("--least", type=float, help="cosine of plain CLIP that a result must have")
    arguments = parser.parse_args()
    with Client(arguments.reco) as reco:
        for point in search(
            reco, QdrantClient(arguments.qdrant), arguments.collection, arguments.text, least=arguments.least
        ):
            print(f"{point.score:.3f}  {point.id}  {point.payload}")


if __name__ == "__main__":
    main()
