"""Graphs that a Triton server runs."""

from .session import TritonSession, open_triton

__all__ = ["TritonSession", "open_triton"]
