"""Sessions: each runs one ONNX graph, in process or on a Triton server."""

from .base import Session
from .opening import check_graph, open_graph, open_session

__all__ = ["Session", "check_graph", "open_graph", "open_session"]
