"""The log: one JSON object per line, with the request's id; never a header, a body or a key. And trace spans."""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, TextIO

import orjson

from ..errors import is_ours

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Id of the current request."""
LOGGER = "reco_plugin.serve"
_USUAL = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}


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
        line |= {name: value for name, value in vars(record).items() if name not in _USUAL}
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        try:
            return printable(orjson.dumps(line, default=str).decode())
        except TypeError:  # half a surrogate pair
            return printable(json.dumps(line, ensure_ascii=False, default=str))


class PlainLines(logging.Formatter):
    """A record as a line for people; input of a client cannot begin another line, nor move the cursor."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Render one record without its trace, and what was noted of a request."""
        noted = {name: value for name, value in vars(record).items() if name not in _USUAL}
        seen = [str(noted.pop(name)) for name in ("method", "path", "status") if name in noted]
        if "seconds" in noted:
            seen.append(f"{1000 * noted.pop('seconds'):.0f} ms")
        more = [f"{name}={value}" for name, value in noted.items()]
        return printable(" ".join([super().formatMessage(record), *seen, *more]))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """Render a trace, whose lines stand under the record's own."""
        return "\n".join(f"  {printable(line)}" for line in super().formatException(ei).split("\n"))


def printable(text: str) -> str:
    r"""The same, with everything but printable characters written as in JSON.

    >>> print(printable("a\x1b[2J\nb é"))
    a\u001b[2J\nb é
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in text)


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Log a warning: one of ours by its words alone, another one with its place."""
    said = str(message) if is_ours(category) else warnings.formatwarning(message, category, filename, lineno, line)
    logging.getLogger("py.warnings").warning("%s", said)


@contextmanager
def log_to_stderr(form: Literal["auto", "json", "text"], level: str) -> Iterator[None]:
    """Write our log, uvicorn's and warnings to stderr, in one format; on a terminal, without uvicorn's own start.

    At the end of the block all is as before: whoever serves from a program of their own has a log, too.
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
    if on_terminal:  # which tells it otherwise, see run.py
        uvicorn.setLevel(max(logging.WARNING, uvicorn.level))
    try:
        yield
    finally:
        root.handlers[:], levels, warnings.showwarning = before
        for log, was in levels.items():
            log.setLevel(was)
