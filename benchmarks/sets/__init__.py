"""Data sets from packages, different in kind from the quickstart: flags, logos, glyphs.

All entities are unknown to the shipped encoder. Each data set is split into ``fusion`` (trains), ``dev`` (chooses) and
``unseen`` (tests); two query styles are in no memory and in no training.
"""

from collections.abc import Callable
from pathlib import Path

from . import flags, glyphs, logos
from .package_set import PackageSet

LOADERS: dict[str, Callable[[Path], PackageSet]] = {"flags": flags.load, "logos": logos.load, "glyphs": glyphs.load}
"""Data set -> its ``load(cache)``."""
