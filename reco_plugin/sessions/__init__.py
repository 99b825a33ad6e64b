"""Sessions: each runs one ONNX graph, in process or on a Triton server."""

from .base import Session
from .opening import Graphs, OpenGraph, check_graph, check_settings, describe_engines, open_graph

__all__ = ["Graphs", "OpenGraph", "Session", "check_graph", "check_settings", "describe_engines", "open_graph"]
