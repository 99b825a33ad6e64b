"""A collection that another system filled, with vectors of the shipped model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qdrant_client import models
from qdrant_stand_in import StandIn

from reco_plugin import Reco

D = 128  # of the shipped model


def theirs(server: StandIn, model: Path, drawings: list[Any], distance: str = "Cosine") -> None:
    """A shop's own collection: numbers as ids, its own names, one product without a title."""
    with Reco.open(model, memory=":memory:") as reco:
        photos = reco.embed_images([pair.image for pair in drawings], refine=False)
        titles = reco.embed_texts([pair.text for pair in drawings], refine=False)
    params = models.VectorParams(size=D, distance=models.Distance(distance))
    server.engine.client.create_collection("shop", vectors_config={"photo": params, "title": params})
    points = [
        models.PointStruct(
            id=100 + row,
            vector={"photo": photo.tolist(), "title": title.tolist()},
            payload={"title": pair.text, "colour": pair.payload["colour"]},
        )
        for row, (pair, photo, title) in enumerate(zip(drawings, photos, titles, strict=True))
    ]
    points.append(models.PointStruct(id=7, vector={"photo": photos[0].tolist()}, payload={"colour": "red"}))
    server.engine.client.upsert("shop", points)
