"""Sessions: each runs one ONNX graph, in process or on a Triton server."""

from .base import Session
from .opening import Graphs, check_graph, check_settings, describe_engines, open_graph

__all__ = ["Graphs", "Session", "check_graph", "check_settings", "describe_engines", "open_graph"]
