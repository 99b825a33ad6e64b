"""Sessions: one ONNX graph each, in process or on a Triton server."""

from .base import Session, open_graph, open_session

__all__ = ["Session", "open_graph", "open_session"]
