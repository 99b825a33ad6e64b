"""The log: one JSON object per line, with the id of the request, but no header, body or key."""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

import orjson

from ..errors import is_ours

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Id of the current request."""
LOGGER = "reco_plugin.serve"
_STANDARD_FIELDS = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}


class JsonLines(logging.Formatter):
    """A record and its ``extra`` fields as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Render one record."""
        line: dict[str, Any] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (current := request_id.get()) is not None:
            line["request_id"] = current
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD_FIELDS}
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        try:
            return printable(orjson.dumps(line, default=str).decode())
        except TypeError:  # half a surrogate pair
            return printable(json.dumps(line, ensure_ascii=False, default=str))


class PlainLines(logging.Formatter):
    """A record as a line for people. Input of a client can neither begin another line nor move the cursor."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Render one record without its trace, and the fields of a request."""
        fields = {name: value for name, value in vars(record).items() if name not in _STANDARD_FIELDS}
        shown = [str(fields.pop(name)) for name in ("method", "path", "status") if name in fields]
        if "seconds" in fields:
            shown.append(f"{1000 * fields.pop('seconds'):.0f} ms")
        more = [f"{name}={value}" for name, value in fields.items()]
        return printable(" ".join([super().formatMessage(record), *shown, *more]))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """Render a trace below its record, indented."""
        return "\n".join(f"  {printable(line)}" for line in super().formatException(ei).split("\n"))


def printable(text: str) -> str:
    r"""Escape characters that are not printable, as JSON does.

    >>> print(printable("a\x1b[2J\nb é"))
    a\u001b[2J\nb é
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in text)


def _log_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any
) -> None:
    """Log a warning. The warnings of other packages get their place in the code."""
    text = str(message) if is_ours(category) else warnings.formatwarning(message, category, filename, lineno)
    logging.getLogger("py.warnings").warning("%s", text)


@contextmanager
def log_to_stderr(form: Literal["auto", "json", "text"], level: str) -> Iterator[None]:
    """Write our log, uvicorn's and warnings to stderr in one format, during the block.

    On a terminal, uvicorn's own messages at its start are left out.
    """
    on_terminal = form == "auto" and sys.stderr.isatty()
    handler = logging.StreamHandler()
    if on_terminal:
        handler.setFormatter(PlainLines("%(asctime)s %(levelname)s: %(message)s", "%H:%M:%S"))
    elif form == "text":
        handler.setFormatter(PlainLines("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    else:
        handler.setFormatter(JsonLines())
    root, uvicorn = logging.getLogger(), logging.getLogger("uvicorn.error")
    logs = [logging.getLogger(LOGGER), logging.getLogger("reco_plugin.encoders.runtimes.graphs"), uvicorn]
    before = [*root.handlers], {log: log.level for log in (root, *logs)}, warnings.showwarning
    warnings.showwarning = _log_warning
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for log in logs:
        log.setLevel(level.upper())
    if on_terminal:  # server.py logs the address
        uvicorn.setLevel(max(logging.WARNING, uvicorn.level))
    try:
        yield
    finally:
        root.handlers[:], levels, warnings.showwarning = before
        for log, was in levels.items():
            log.setLevel(was)
