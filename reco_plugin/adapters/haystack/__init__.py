"""Haystack: embedders of queries, documents and images. Queries are refined, documents stay plain CLIP.

Haystack imports only modules that are allowed, so a stored pipeline is loaded by
``Pipeline.loads(text, allowed_modules=["reco_plugin.adapters.haystack.*"])``.
"""

from __future__ import annotations

from ...errors import MissingExtra

try:
    from .documents import RecoDocumentEmbedder, RecoDocumentImageEmbedder
    from .query import RecoTextEmbedder
except ModuleNotFoundError as error:
    raise MissingExtra("haystack-ai", "haystack", "this adapter") from error

__all__ = ["RecoDocumentEmbedder", "RecoDocumentImageEmbedder", "RecoTextEmbedder"]
