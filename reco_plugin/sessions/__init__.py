"""Sessions: each runs one ONNX graph, in process or on a Triton server."""

from .base import Session
from .opening import check_graph, describe_engines, open_graph, open_session

__all__ = ["Session", "check_graph", "describe_engines", "open_graph", "open_session"]
