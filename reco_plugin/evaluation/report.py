"""The page of a record: one self-contained HTML file with thumbnails."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import time
from collections.abc import Hashable
from dataclasses import replace
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

from ..encoders.preprocess.image import thumbnail
from ..errors import DataError, ImageError, need
from ..files import as_data_error, whole_file
from ..sources.images import RemoteImage
from ..types import ImageInput
from .record import Record
from .table import table_of

ALL_S, ONE_S = 60.0, 5.0
"""Seconds to fetch all remote pictures, and one of them; a picture that is late is left out."""


class Thumbnails:
    """Thumbnails by a key of the caller, each made once."""

    def __init__(self) -> None:
        self._made: dict[Hashable, str | None] = {}
        self._until = time.monotonic() + ALL_S

    def of(self, key: Hashable, image: ImageInput | RemoteImage) -> str | None:
        """A thumbnail as a data URI; None if the picture cannot be read."""
        if key not in self._made:
            self._made[key] = self._make(image)
        return self._made[key]

    def _make(self, image: ImageInput | RemoteImage) -> str | None:
        try:
            if not isinstance(image, RemoteImage):
                return thumbnail(image)
            left = self._until - time.monotonic()
            return thumbnail(replace(image, timeout_s=min(ONE_S, left)).read()) if left > 0 else None
        except (DataError, ImageError):
            return None


_CODE = re.compile(r"`([^`]+)`")


def render_page(record: Record) -> str:
    """Render a record as one HTML page.

    Raises:
        MissingExtra: jinja2 is not installed.
    """
    titles, rows = table_of(record)
    return render_template("page", record=record, titles=titles, rows=rows)


def render_template(name: str, **values: Any) -> str:
    """Render ``NAME.html`` with its script ``NAME.js`` and the style of all pages.

    Raises:
        MissingExtra: jinja2 is not installed.
    """
    need("jinja2", "the HTML page", "measure")
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
    from markupsafe import Markup, escape

    def prose(text: str) -> Markup:
        return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped first

    environment = Environment(
        loader=PackageLoader(__package__, "templates"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["prose"] = prose
    script = _template(f"{name}.js")
    return environment.get_template(f"{name}.html").render(
        values,
        style=Markup(_template("page.css")),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _template(name: str) -> str:
    return (package_files(__package__) / "templates" / name).read_text(encoding="utf-8")


def check_writable(out: Path) -> None:
    """Raise DataError if a folder cannot be made or written to; nothing is made."""
    there = next(place for place in (out.absolute(), *out.absolute().parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise DataError(f"{out} cannot be written to: {there} is {'read-only' if there.is_dir() else 'a file'}")


def write_record(record: Record, folder: Path, name: str) -> Path:
    """Write ``NAME.html``, ``NAME.json`` and, if the record has queries, ``queries.jsonl``; returns the page's path.

    Raises:
        DataError: they cannot be written.
        MissingExtra: jinja2 is not installed.
    """
    with as_data_error(f"{folder} cannot be made"):
        folder.mkdir(parents=True, exist_ok=True)
    files = {f"{name}.json": json.dumps(record.to_dict(), indent=2, ensure_ascii=False) + "\n"}
    files[f"{name}.html"] = render_page(record)
    if record.queries:
        files["queries.jsonl"] = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in record.queries)
    for file, text in files.items():
        with whole_file(folder / file) as part:
            part.write_text(text, encoding="utf-8")
    return folder / f"{name}.html"
