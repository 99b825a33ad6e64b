"""Optional packages of the readers, imported when first needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..errors import MissingExtra


def need(module: str, purpose: str, extra: str = "data") -> Any:
    """Import a module of an extra, as in ``need("pyarrow.parquet", "reading parquet")``.

    Raises:
        MissingExtra: its package is not installed.
    """
    try:
        return import_module(module)
    except ImportError:
        raise MissingExtra(module.partition(".")[0], extra, purpose) from None
