"""A stand-in for a Qdrant server where none can run: real transports and real shapes over qdrant-client's own engine.

What it cannot show is a server's own behaviour: HNSW, quantisation, shards, replicas, strict mode and rate limits are
recorded or scripted here, and proved only by the tests that want a real server.
"""

from .engine import Engine, Refusal
from .server import StandIn, serving

__all__ = ["Engine", "Refusal", "StandIn", "serving"]
