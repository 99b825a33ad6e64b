"""A text encoder that computes features of no use for one text, as a graph in half precision may."""

from __future__ import annotations

from typing import Any

from reco_plugin import Reco


class SpoiledFeatures:
    """Stands before the graph of texts."""

    def __init__(self, reco: Reco, text: str, value: float) -> None:
        reco.encoder.texts(["warm-up"])
        sessions = reco.encoder._sessions
        self._inner, sessions["text"] = sessions["text"], self
        self._ids, self._value = reco.encoder.preparation.tokenizer([text]).ids[0], value

    def run(self, inputs: Any) -> Any:
        tokens = inputs["tokens"]
        features = self._inner.run(inputs)["features"].copy()
        features[(tokens == self._ids[: tokens.shape[1]]).all(axis=1)] = self._value
        return {"features": features}
