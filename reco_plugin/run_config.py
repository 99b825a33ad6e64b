"""Options of a command, each stated once as a field."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from .errors import ConfigError
from .values import in_words


class CommandOptions(BaseModel):
    """Options of a command; each field with a description is a flag, and the description is its help.

    More about a flag: ``flag``, its name if not the field's; ``unset``, the meaning of leaving it out.
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
            name = str(first["loc"][0]) if first["loc"] else ""
            flag = said_of(cls.model_fields.get(name)).get("flag", "--" + name.replace("_", "-"))
            own = first["type"] == "value_error"  # of a validator here, whose message has the value
            raise ConfigError(
                f"{flag} {in_words(first['msg'])}" + ("" if own else f" (got {first['input']!r:.60})")
            ) from None


def option(default: Any, description: str, *, ge: float | None = None, le: float | None = None, **said: Any) -> Any:
    """A field that is a flag; for ``said`` see :class:`CommandOptions`."""
    return Field(default, description=description, ge=ge, le=le, json_schema_extra=said)


def said_of(field: FieldInfo | None) -> dict[str, Any]:
    """The extras of a field's flag, see :class:`CommandOptions`."""
    extra = field.json_schema_extra if field else None
    return dict(extra) if isinstance(extra, dict) else {}
