"""Findings as a page, one file that loads nothing."""

from .thumbnails import Thumbnails
from .write import Addition, render_page

__all__ = ["Addition", "Thumbnails", "render_page"]
