"""The embedder of queries."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from haystack import component

from ...types import InputType
from .embedder import HaystackEmbedder


@component
class RecoTextEmbedder(HaystackEmbedder):
    """Embeds the text of a query, refined by default."""

    side: ClassVar[InputType] = "query"

    @component.output_types(embedding=list[float], meta=dict[str, Any])
    def run(self, text: str) -> dict[str, Any]:
        """Embed a text; TypeError for anything else."""
        if not isinstance(text, str):
            raise TypeError(
                f"RecoTextEmbedder embeds a text, got {type(text).__name__}: RecoDocumentEmbedder for lists"
            )
        return {"embedding": self.source.texts([text], self.side).tolist()[0], "meta": {"refine": self._refine}}

    @component.output_types(embedding=list[float], meta=dict[str, Any])
    async def run_async(self, text: str) -> dict[str, Any]:
        """Embed a text in a thread."""
        return await asyncio.to_thread(self.run, text)
