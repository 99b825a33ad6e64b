"""An index without an address: a function of the user searches it."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from math import isfinite
from numbers import Real
from pathlib import Path

from ..errors import ConfigError, EngineError, RecoError
from ..files import in_home
from ..sources.indexes import Description, Document, IndexHit, IndexQuery
from ..values import did_you_mean
from .search import SearchFunction


class FunctionIndex:
    """An :class:`~reco_plugin.sources.indexes.Engine` that calls a function; its vectors are not checked."""

    def __init__(
        self, search: SearchFunction, dimension: int, *, searches_text: bool = False, name: str = "a function"
    ) -> None:
        """Wrap a function that returns hits, best first; ``searches_text`` if it takes questions without a vector."""
        self._search = search
        self._description = Description(
            name, name, 0, "vector", dimension, "cosine", "not known", searches_text=searches_text
        )

    def describe(self) -> Description:
        """Name and dimension; the number of documents is not known."""
        return self._description

    def scan(self, *, vectors: bool = True, size: int = 1000) -> Iterator[list[Document]]:
        """Yield nothing: a function cannot be scanned."""
        return iter(())

    def search(self, question: IndexQuery) -> Sequence[IndexHit]:
        """Return the first k hits of the function.

        Raises:
            EngineError: the function fails, or returns anything but hits, best first.
        """
        name = self._description.name
        try:
            hits = list(self._search(question))
        except RecoError:
            raise
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            raise EngineError(
                f"{name} failed: {type(error).__name__}: {error} ({Path(where.filename).name}, line {where.lineno})"
            ) from error
        for hit in hits:
            score = getattr(hit, "score", None)
            is_hit = isinstance(hit, IndexHit) and isinstance(hit.id, str)
            if not is_hit or not isinstance(score, Real) or not isfinite(score):
                raise EngineError(
                    f"{name} returned {hit!r}: it must return IndexHits, each with a text as id and a finite number as "
                    "score"
                )
        if question.vector is not None and hits and hits[0].score < hits[-1].score:
            raise EngineError(
                f"{name} returned scores from {hits[0].score:g} up to {hits[-1].score:g}: the best hit comes first, "
                "with the cosine as score, which is 1 - distance if the engine returns cosine distances"
            )
        return [replace(hit, score=float(hit.score)) for hit in hits[: question.k]]  # JSON cannot hold NumPy's float32

    def close(self) -> None:
        """Do nothing: there is no connection."""


def load_function(where: str, dimension: int) -> FunctionIndex:
    """Run ``FILE.py:NAME``, and return the :class:`FunctionIndex` or wrap the function of that name.

    Raises:
        ConfigError: there is no such file or name, it cannot be called, or the file cannot be run.
    """
    file, colon, name = where.rpartition(":")
    path = in_home(file)
    if not colon or path.suffix != ".py" or not name.isidentifier():
        raise ConfigError(f"--function is FILE.py:NAME, as in shop.py:search, got {where!r}")
    spec = spec_from_file_location(f"_{path.stem}_searches", path) if path.is_file() else None
    if spec is None or spec.loader is None:
        raise ConfigError(f"--function {where}: there is no file {path}")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickle look up their module
    sys.path.insert(0, str(path.resolve().parent))  # as for a script, which can import its neighbours
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ConfigError(f"--function {where}: the file cannot be run: {type(error).__name__}: {error}") from error
    if not hasattr(module, name):
        names = [one for one in vars(module) if not one.startswith("_")]
        raise ConfigError(f"--function {where}: {path.name} has no {name!r}: {did_you_mean(name, names)}")
    value = getattr(module, name)
    if isinstance(value, FunctionIndex):
        return value
    if not callable(value):
        raise ConfigError(f"--function {where}: {name} is {type(value).__name__}, no function")
    return FunctionIndex(value, dimension, name=where)
