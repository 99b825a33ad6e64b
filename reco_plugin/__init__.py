"""Refine CLIP embeddings through a memory of image-text pairs.

::

    images, texts --encode--> CLIP vectors --retrieve--> neighbours in the memory --fuse--> refined vectors
                  (frozen)                 (same modality)          (other modality)       (same space)

The names below are the public ones; everything else may move. They are loaded when they are first used, so
importing this package costs nothing and loads neither torch nor ONNX Runtime, Qdrant or PIL.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import RecoError
    from .reco import Reco
    from .types import Neighbours, Pair, Refinement

_HOMES = {
    "Neighbours": ".types",
    "Pair": ".types",
    "Reco": ".reco",
    "RecoError": ".errors",
    "Refinement": ".types",
}

__version__ = "0.1.0"
__all__ = ["Neighbours", "Pair", "Reco", "RecoError", "Refinement", "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
