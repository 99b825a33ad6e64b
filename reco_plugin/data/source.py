"""A source and its options, as one text: ``captions_val2017.json?images=val2017&limit=500``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import ConfigError
from ..values import did_you_mean, nearest, split_options

_FLAGS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


@dataclass(frozen=True)
class Location:
    """A source and its options."""

    name: str  # file, folder, pattern or ``torchvision:NAME``, without the options
    options: Mapping[str, str] = field(default_factory=dict)  # as written, without decoding

    @property
    def path(self) -> Path:
        """The name as a path."""
        return Path(self.name)

    @property
    def images(self) -> Path | None:
        """The folder of images that its option names; None where it is not given."""
        return Path(self.options["images"]).expanduser() if "images" in self.options else None

    def without(self, option: str) -> Location:
        """The same source without an option."""
        return replace(self, options={name: value for name, value in self.options.items() if name != option})

    def only(self, *known: str) -> None:
        """Check that there are no other options than these.

        Raises:
            ConfigError: an unknown option; the message lists the known ones.
        """
        for option in self.options:
            if option not in known:
                has = f"its options are {', '.join(known)}" if known else "it takes none"
                near = f" ({did_you_mean(option, known)})" if nearest(option, known) else ""
                raise ConfigError(f"{self.name} has no option {option!r}{near}: {has}")

    def count(self, option: str) -> int | None:
        """Parse an option that is a number from 1; None where it is not given.

        Raises:
            ConfigError: not a number from 1.
        """
        value = self.options.get(option)
        if value is None:
            return None
        if not (value.isascii() and value.isdecimal() and int(value) > 0):
            raise ConfigError(f"{self.name}: option {option}={value!r} must be a whole number from 1")
        return int(value)

    def flag(self, option: str) -> bool | None:
        """Parse an option that is on or off; None where it is not given.

        Raises:
            ConfigError: neither on nor off.
        """
        if option not in self.options:
            return None
        value = self.options[option].lower()
        if value not in _FLAGS:
            raise ConfigError(f"{self.name}: option {option}={value!r} must be 1 or 0")
        return _FLAGS[value]


def parse_source(source: str | Path) -> Location:
    """Split a source from its options; the path of an existing file has none.

    Raises:
        ConfigError: an option is given twice.

    >>> parse_source("torchvision:CIFAR10?split=test&limit=100")
    Location(name='torchvision:CIFAR10', options={'split': 'test', 'limit': '100'})
    >>> parse_source("shards/test-0?.tar")  # a pattern, no options
    Location(name='shards/test-0?.tar', options={})
    """
    return Location(*split_options(str(source)))
