"""Indexes of search engines, read in place: one module an engine."""
