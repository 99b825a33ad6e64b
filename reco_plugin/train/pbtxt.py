"""Protobuf's text format, for configuration that is written and never read back here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_WIDTH = 118


class Word(str):
    """The value of an enum, which stands without quotes."""

    __slots__ = ()


def render(message: Mapping[str, Any]) -> str:
    """Write a message: mappings are messages, sequences of mappings repeated ones, other sequences lists.

    >>> group = {"kind": Word("KIND_AUTO"), "count": 1}
    >>> print(render({"backend": "onnxruntime", "dims": [-1, 3], "cache": {"enable": True}, "group": [group]}), end="")
    backend: "onnxruntime"
    dims: [ -1, 3 ]
    cache { enable: true }
    group { kind: KIND_AUTO count: 1 }
    """
    return "".join(f"{line}\n" for line in _lines(message))


def _lines(message: Mapping[str, Any]) -> Iterator[str]:
    for name, value in message.items():
        if isinstance(value, Mapping):
            yield from _block(name, value)
        elif isinstance(value, Sequence) and not isinstance(value, str):
            if value and isinstance(value[0], Mapping):
                for item in value:
                    yield from _block(name, item)
            else:
                yield f"{name}: [ {', '.join(map(_scalar, value))} ]"
        else:
            yield f"{name}: {_scalar(value)}"


def _block(name: str, message: Mapping[str, Any]) -> Iterator[str]:
    """On one line where it fits."""
    inside = list(_lines(message))
    flat = f"{name} {{ {' '.join(inside)} }}"
    if len(flat) <= _WIDTH and not any(line.startswith(" ") for line in inside):
        yield flat
    else:
        yield f"{name} {{"
        yield from (f"  {line}" for line in inside)
        yield "}"


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Word):
        return str(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)
