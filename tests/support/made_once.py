"""What tests make again and again, each time the same to the last bit, is made once by a process.

A session of ONNX Runtime takes 10 ms and a service opens six, the command line 25, what a memory of two dozen pairs
learns 17, the types of a service's answers and parameters 100: most tests do less than that.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from reco_plugin.config import Settings
from reco_plugin.sessions.ort import OrtSession

open_session = OrtSession.__init__  # for tests of sessions themselves


def sessions_of(model: Path) -> Callable[..., None]:
    """In place of ``OrtSession.__init__``: graphs of this folder are opened once for each set of options."""
    opened: dict[Any, OrtSession] = {}

    def once(self: OrtSession, path: Path, settings: Settings, **more: bool) -> None:
        if model not in Path(path).parents:
            open_session(self, path, settings, **more)
            return
        options = sorted(settings.provider_options.items())
        key = (path, settings.provider, settings.threads, settings.arena, repr(options), repr(more))
        if key not in opened:
            made = OrtSession.__new__(OrtSession)
            open_session(made, path, settings, **more)
            opened[key] = made
        vars(self).update(vars(opened[key]))

    return once


def digests_of(model: Path, sha256_file: Callable[[Path], str]) -> Callable[[Path], str]:
    """In place of ``sha256_file``: files of this folder are read once, while they stay."""
    known: dict[Any, str] = {}

    def once(path: Path) -> str:
        if model not in path.parents:
            return sha256_file(path)
        now = path.stat()
        key = (path, now.st_size, now.st_mtime_ns, now.st_ctime_ns)
        if key not in known:
            known[key] = sha256_file(path)
        return known[key]

    return once


def commands_of(get_command: Callable[..., Any]) -> Callable[..., Any]:
    """In place of typer's ``get_command``: ours are read once; an app that a test makes may still grow."""
    from reco_plugin.cli.app import app

    ours = cache(get_command)
    return lambda asked: ours(asked) if asked is app else get_command(asked)


def fields_of(create_model_field: Callable[..., Any]) -> Callable[..., Any]:
    """In place of FastAPI's, for parameters: their descriptions cannot be hashed, so all that they say is the key.

    A field that is kept keeps its parts, so that the address of none, by which some are shown, is given to another.
    """
    made: dict[Any, Any] = {}

    def once(name: str, type_: Any, *, field_info: FieldInfo, **given: Any) -> Any:
        said = {slot: getattr(field_info, slot, None) for slot in FieldInfo.__slots__ if "annotation" not in slot}
        key = (name, type(field_info), repr(said), repr(vars(field_info)), repr(given))
        fields = made.setdefault(key, [])
        for field in fields:  # annotations are compared: two classes may have one name
            if field.field_info.annotation == field_info.annotation:
                return field
        fields.append(create_model_field(name=name, type_=type_, field_info=field_info, **given))
        return fields[-1]

    return once
