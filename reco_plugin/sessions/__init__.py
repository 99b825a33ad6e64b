"""Sessions: each runs one ONNX graph, in process or on a Triton server."""

from .base import Session
from .opening import OpenGraph, check_graph, describe_engines, open_graph

__all__ = ["OpenGraph", "Session", "check_graph", "describe_engines", "open_graph"]
