"""An engine that has no address: a function of the user's own that searches it."""

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
from ..sources.indexes.open_index import Description, Document, IndexHit, Question
from ..values import did_you_mean
from .search import AskIndex


class FunctionIndex:
    """An index that a function searches; see :class:`~reco_plugin.sources.indexes.open_index.Engine`.

    Nothing is known of such an index but what is said here, so its vectors are not checked.
    """

    def __init__(
        self, search: AskIndex, dimension: int, *, searches_text: bool = False, name: str = "a function"
    ) -> None:
        """Take a function of a :class:`~reco_plugin.sources.indexes.open_index.Question` that gives hits, best first.

        Args:
            search: the function.
            dimension: of the index's vectors.
            searches_text: whether it takes questions without a vector.
            name: for people.
        """
        self._search = search
        self._own = Description(name, name, 0, "vector", dimension, "cosine", "not known", searches_text=searches_text)

    def describe(self) -> Description:
        """What was said of it."""
        return self._own

    def scan(self, *, vectors: bool = True, size: int = 1000) -> Iterator[list[Document]]:
        """Nothing: a function cannot be scanned."""
        return iter(())

    def search(self, question: Question) -> Sequence[IndexHit]:
        """The first k that the function finds.

        Raises:
            EngineError: the function fails, or gives something else than hits, best first.
        """
        try:
            found = list(self._search(question))
        except RecoError:
            raise
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            raise EngineError(
                f"{self._own.name} failed: {type(error).__name__}: {error} ({Path(where.filename).name}, line "
                f"{where.lineno})"
            ) from error
        for hit in found:
            if not isinstance(hit, IndexHit) or not isinstance(hit.id, str) or not _is_score(hit.score):
                raise EngineError(
                    f"{self._own.name} gave {hit!r}: it must give IndexHits, each with a text as id and a finite "
                    "number as score"
                )
        if question.vector is not None and found and found[0].score < found[-1].score:
            raise EngineError(
                f"{self._own.name} gave scores from {found[0].score:g} up to {found[-1].score:g}: the best hit comes "
                "first, with the cosine as score, which is 1 - distance where an engine tells cosine distances"
            )
        return [replace(hit, score=float(hit.score)) for hit in found[: question.k]]  # NumPy's float32 is no JSON

    def close(self) -> None:
        """Nothing is open."""


def _is_score(score: object) -> bool:
    return isinstance(score, Real) and isfinite(score)


def load_function(where: str, dimension: int) -> FunctionIndex:
    """The function ``NAME`` of ``FILE.py:NAME``, or the :class:`FunctionIndex` of that name. The file is run.

    Args:
        where: the file and the name.
        dimension: of the index's vectors, where the file does not state it.

    Raises:
        ConfigError: there is no such file or name, it is neither, or the file cannot be run.
    """
    file, found, name = where.rpartition(":")
    path = in_home(file)
    if not found or path.suffix != ".py" or not name.isidentifier():
        raise ConfigError(f"--function is FILE.py:NAME, as in shop.py:search, got {where!r}")
    spec = spec_from_file_location(f"_{path.stem}_searches", path) if path.is_file() else None
    if spec is None or spec.loader is None:
        raise ConfigError(f"--function {where}: there is no file {path}")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickle look their module up
    sys.path.insert(0, str(path.resolve().parent))  # as for a script: what lies beside it can be imported
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ConfigError(f"--function {where}: the file cannot be run: {type(error).__name__}: {error}") from error
    own = [one for one in vars(module) if not one.startswith("_")]
    if not hasattr(module, name):
        raise ConfigError(f"--function {where}: {path.name} has no {name!r}: {did_you_mean(name, own)}")
    said = getattr(module, name)
    if isinstance(said, FunctionIndex):
        return said
    if not callable(said):
        raise ConfigError(f"--function {where}: {name} is {type(said).__name__}, no function")
    return FunctionIndex(said, dimension, name=where)  # what it gives is checked when it searches
