"""The stand-in in a container: Qdrant's ports, and its data in Qdrant's folder."""

import os
import threading

from .engine import Engine
from .server import StandIn

StandIn(
    Engine(os.environ.get("QDRANT__SERVICE__API_KEY") or None, folder="/qdrant/storage"),
    host="0.0.0.0",
    rest_port=6333,
    grpc_port=6334,
).start()
threading.Event().wait()
