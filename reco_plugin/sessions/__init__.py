"""Sessions: one loaded ONNX graph each."""

from .base import Session, open_session

__all__ = ["Session", "open_session"]
