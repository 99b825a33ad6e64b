"""In the place of transformers, which only the tests install: see ``lean_start.py``."""

raise ImportError("not for processes that tests start")
