"""Drawings of icon sets: packages through npm, and SVG to pixels."""
