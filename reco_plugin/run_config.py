"""The configuration of a run: all that is needed to repeat it, as one file in the run's folder."""

from __future__ import annotations

import json
import platform
import shlex
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from .errors import ConfigError
from .files import whole_file
from .values import in_words

_PACKAGES = ("reco-plugin", "numpy", "onnxruntime", "onnxruntime-gpu")


class CommandOptions(BaseModel):
    """Options of a command; each field with a description is a flag, and the description is its help.

    More about a flag: ``flag``, its name if not the field's; ``joined``, a list is one text with commas; ``unset``, the
    meaning of leaving it out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def of(cls, **options: Any) -> Self:
        """Make it from options.

        Raises:
            ConfigError: naming the flag and the value.
        """
        try:
            return cls.model_validate(options)
        except ValidationError as error:
            first = error.errors()[0]
            where = [flag_of(name, cls.model_fields.get(name)) for name in map(str, first["loc"][:1])]
            own = first["type"] == "value_error"  # of a validator here, whose message has the value
            said = in_words(first["msg"]) + ("" if own else f" (got {first['input']!r:.60})")
            raise ConfigError(" ".join([*where, said])) from None


class RunConfig(CommandOptions):
    """The source and options of a run."""

    spelled: ClassVar[str]
    """The command, without options."""
    file: ClassVar[str] = "config.json"
    """In the run's folder."""
    noun: ClassVar[str] = "configuration"

    source: str

    def command(self, *more: object) -> str:
        """The command line that repeats the run; ``more`` are words that are not fields."""
        parts = [*self.spelled.split(), self.source]
        for name, value in self.model_dump(exclude={"source"}, exclude_defaults=True).items():
            parts += _words(name, type(self).model_fields[name], value)
        return shlex.join([*parts, *map(str, more)])

    def write(self, folder: Path, **more: Any) -> None:
        """Write the file into a run's folder, which is created.

        Raises:
            DataError: it cannot be written.
        """
        with whole_file(folder / self.file) as part:
            folder.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps(self.model_dump(mode="json") | more, indent=1) + "\n", encoding="utf-8")

    def check(self, folder: Path) -> None:
        """Check that a run's folder holds no other configuration.

        Raises:
            ConfigError: the folder is a file, or holds a run with another configuration.
        """
        path = folder / self.file
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"{folder} is a file: --out takes a folder")
        if path.is_file() and (changed := self._list_changes(path)):
            raise ConfigError(
                f"{folder} holds a run of another {self.noun} ({path} differs in {changed}): choose another --out or "
                "delete it"
            )

    def _list_changes(self, path: Path) -> str:
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} is damaged, delete it: {error}") from None
        mine = self.model_dump(mode="json")
        if not isinstance(stored, dict):
            return "everything"
        return ", ".join(name for name in sorted({*mine, *stored}) if mine.get(name) != stored.get(name))


def option(default: Any, description: str, *, ge: float | None = None, le: float | None = None, **said: Any) -> Any:
    """A field that is a flag; for ``said`` see :class:`CommandOptions`."""
    return Field(default, description=description, ge=ge, le=le, json_schema_extra=said)


def flag_of(name: str, field: FieldInfo | None = None) -> str:
    """The flag of a field.

    >>> flag_of("max_pairs")
    '--max-pairs'
    """
    return str(said_of(field).get("flag", "--" + name.replace("_", "-")))


def said_of(field: FieldInfo | None) -> dict[str, Any]:
    """The extras of a field's flag, see :class:`CommandOptions`."""
    extra = field.json_schema_extra if field else None
    return dict(extra) if isinstance(extra, dict) else {}


def versions() -> dict[str, str]:
    """Versions of Python and the packages that affect the figures."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _words(name: str, field: FieldInfo, value: Any) -> list[str]:
    flag = flag_of(name, field)
    if isinstance(value, bool):
        return [flag if value else "--no-" + flag[2:]]
    if said_of(field).get("joined"):
        return [flag, ",".join(value)]
    return [text for one in (value if isinstance(value, tuple) else (value,)) for text in (flag, str(one))]
