"""Call a `reco serve` by a :class:`Client`; in an event loop, ``await asyncio.to_thread(client.embed_texts, texts)``.

Vectors and arguments are those of a :class:`reco_plugin.Reco` of the same model and memory.
"""

from ..types import Used
from .requests import Refined
from .service import Client

__all__ = ["Client", "Refined", "Used"]
