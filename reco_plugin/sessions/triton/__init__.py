"""Graphs that a Triton server runs."""

from .session import TritonSession, check_triton, open_triton

__all__ = ["TritonSession", "check_triton", "open_triton"]
