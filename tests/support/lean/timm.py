"""In the place of timm, of which no tower of the tests is: see ``lean_start.py``."""

raise ImportError("not for processes that tests start")
