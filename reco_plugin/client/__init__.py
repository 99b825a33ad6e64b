"""Call a `reco serve`: :class:`Client`, and :class:`AsyncClient` with the same methods to await.

Vectors and arguments are those of a :class:`reco_plugin.Reco` of the same model and memory. ``calls`` defines requests
and answers for both clients, which only transport them.
"""

from __future__ import annotations

from ..types import Used
from .calls import Refined, ServedMatches
from .clients import AsyncClient, Client
from .service import Fallback

__all__ = ["AsyncClient", "Client", "Fallback", "Refined", "ServedMatches", "Used"]
