"""Graphs that a Triton server runs."""

from .session import Infers, TritonSession, check_triton, open_triton

__all__ = ["Infers", "TritonSession", "check_triton", "open_triton"]
