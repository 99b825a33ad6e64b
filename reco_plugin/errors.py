"""All errors. Vendor errors are translated where they are caught; messages name values and what to do.

::

    RecoError
    ├── ConfigError            a setting, option or argument is wrong
    │   └── MissingExtra       a package of an optional extra is not installed
    ├── InputError             input of encode, refine or add (also a ValueError)
    │   ├── ImageError         not a readable image
    │   │   └── ImageTooLarge      more pixels than are decoded
    │   └── VectorError        wrong dimension, NaN, not unit-norm
    ├── DataError              a data set, download or file to read
    ├── ArtifactError          the model folder: missing, truncated, of a newer version
    ├── SessionError           running a graph, or its execution provider is missing
    │   ├── UnusableFeatures   a graph computed NaN, infinity or zeros for an input
    │   ├── SessionUnavailable the model server cannot be reached, or went down
    │   │   └── SessionOverloaded  its queue is full
    │   └── SessionTimeout     it did not answer before the deadline
    ├── EngineError            an index of a search engine: it refuses, or has another form than is said
    │   └── EngineUnavailable  it cannot be reached, or is overloaded
    │       └── EngineTimeout      it did not answer in time
    └── MemoryStoreError       the store of pairs
        ├── MemoryUnavailable  the server cannot be reached, or went down
        │   └── MemoryOverloaded   it refuses more work for now
        ├── MemoryTimeout      it did not answer before the deadline
        ├── MemoryLocked       another process holds it
        ├── MemoryFull         its disk is full
        ├── MemoryReadOnly     its folder cannot be written, or is gone
        └── FingerprintMismatch  built by another encoder
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Self

FORKED = (
    "was opened before this process was forked, and works only in the process that opened it (a fork has none of the "
    "threads that it needs): open it in each process, or start processes by multiprocessing's 'spawn'"
)
"""End of the message for use in a forked process, where calls would hang."""
WHAT_IMAGES_ARE = (
    "pass a path, the bytes of an image file or a PIL image; "
    "PIL.Image.fromarray makes one of an array (H, W, 3) of uint8"
)
"""Advice where something else was given as an image."""


class RecoError(Exception):
    """Base of every error this package raises on purpose."""


class ConfigError(RecoError):
    """A setting, option or argument is unknown or has an invalid value."""


class MissingExtra(ConfigError):
    """An optional package is needed and not installed; the message holds the install line."""

    def __init__(self, package: str, extra: str, purpose: str, problem: str = "is not installed") -> None:
        super().__init__(f"{purpose} needs {package}, which {problem}: pip install 'reco-plugin[{extra}]'")


@contextmanager
def importing(package: str | None, extra: str, purpose: str) -> Iterator[None]:
    """Make :class:`MissingExtra` of an import that fails in the block; ``package`` None: whatever is not there.

    Example::

        with importing("ray", "ray", "--engine ray"):
            import ray
    """
    try:
        yield
    except ImportError as error:
        absent = isinstance(error, ModuleNotFoundError)
        problem = "is not installed" if absent else f"cannot be imported ({error})"
        raise MissingExtra(package or error.name or extra, extra, purpose, problem) from error


def need(module: str, purpose: str, extra: str = "data") -> Any:
    """Import a module of an extra, as in ``need("pyarrow.parquet", "reading parquet")``.

    Raises:
        MissingExtra: its package is not installed.
    """
    with importing(module.partition(".")[0], extra, purpose):
        return import_module(module)


class InputError(RecoError, ValueError):
    """Input of a call that cannot be used."""


class ImageError(InputError):
    """An image that cannot be decoded.

    Attributes:
        problem: what is wrong, as in "is not an image".
        advice: what to do, which follows in the message; may be empty.
    """

    def __init__(self, problem: str, advice: str = "") -> None:
        super().__init__("; ".join(filter(None, (problem, advice))))
        self.problem, self.advice = problem, advice

    def about(self, image: str) -> Self:
        """The same, naming the image before the problem."""
        return type(self)(f"{image} {self.problem}", self.advice)


class ImageTooLarge(ImageError):
    """An image that is too large to decode safely."""


class VectorError(InputError):
    """Vectors of a wrong shape, with NaN or infinity, or not of unit norm."""


class DataError(RecoError):
    """A data set or file that cannot be fetched or read."""


class ArtifactError(RecoError):
    """A model folder that is missing, incomplete, damaged or of an unknown version."""


class SessionError(RecoError):
    """A graph could not be loaded or run, or not on the chosen execution provider."""


class UnusableFeatures(SessionError):
    """A graph computed features without a direction for an input: NaN, infinity or zeros.

    Attributes:
        what: the input, as in "text 'a red fox'".
        position: of the input among those of the call, from 0.
    """

    def __init__(self, what: str, position: int) -> None:
        super().__init__(
            f"the encoder computed no vector for the {what} at position {position}: its features are NaN, infinite or "
            "zero. If other inputs fail, too, the graph or its precision is at fault: check it by reco doctor"
        )
        self.what, self.position = what, position


class SessionUnavailable(SessionError):
    """The model server cannot be reached, or went down before it answered; it may be back later."""


class SessionOverloaded(SessionUnavailable):
    """The model server refuses more work for now."""


class SessionTimeout(SessionError):
    """The model server did not answer before the deadline."""


class EngineError(RecoError):
    """An index of a search engine could not be read: the engine refuses, or the index has another form than is said."""


class EngineUnavailable(EngineError):
    """The engine cannot be reached, starts, or is overloaded; it may answer later."""


class EngineTimeout(EngineUnavailable):
    """The engine did not answer in time."""


class MemoryStoreError(RecoError):
    """The memory could not be opened, read or written."""


class MemoryUnavailable(MemoryStoreError):
    """The memory's server cannot be reached, went down before it answered, or fails; it may be back later."""


class MemoryOverloaded(MemoryUnavailable):
    """The memory's server refuses more work for now."""


class MemoryTimeout(MemoryStoreError):
    """The memory's server did not answer before the deadline."""


class MemoryLocked(MemoryStoreError):
    """Another process (or another object of this one) holds the memory open."""


class MemoryFull(MemoryStoreError):
    """The disk of the memory has no room for what was to be written."""


class MemoryReadOnly(MemoryStoreError):
    """The memory's folder may not be written, or is gone."""


class FingerprintMismatch(MemoryStoreError):
    """The memory was built by another encoder or preprocessing than the model in use."""


def is_ours(category: type[Warning]) -> bool:
    """Whether a warning is one of this package's, which its words alone explain."""
    return category is UserWarning or category.__module__.startswith("reco_plugin.")
