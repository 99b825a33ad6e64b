"""What a study is asked to do: everything that is needed to do it again."""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...config import FuserName
from ...defaults import PAIRS_IN_RAM
from ...errors import ConfigError
from ...files import whole_file
from ...request import RefineHow
from ...types import Mode
from ..task import Side

CONFIG = "config.json"
SectionName = Literal["main", "retrieval", "ablations", "baselines", "harm", "gate", "cost", "cases"]
SECTIONS: tuple[SectionName, ...] = get_args(SectionName)
_PACKAGES = ("reco-plugin", "numpy", "onnxruntime", "onnxruntime-gpu")


class StudyConfig(BaseModel):
    """One study; field names are the options of ``reco eval study``.

    Attributes:
        source: labelled set.
        memory: folder or URL of a memory.
        memory_from: pairs to build a memory of, in RAM.
        models: model folders of one encoder: several trainings; none for vectors with the training-free fuser, or for
            the settings' own.
        control: model folder whose fusion was trained without retrieval.
        fuser: which fusion; None leaves it to the settings.
        templates: prompts with ``{}``.
        k, search, fusion, gate: of the refinement; None leaves them to the model.
        side: what is refined outside of the main table; None leaves it to the model's policy.
        dev: labelled set for choosing baselines.
        distractors: pairs of another domain.
        captions: retrieval set.
        label_key: payload key of the memory that names the class.
        sections: what to measure, in reading order.
        quick: shorter curves and fewer bootstrap draws.
        memory_limit: pairs that heavy variants hold in RAM.
        seed: of every random choice.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    memory: str | None = None
    memory_from: str | None = None
    models: tuple[str, ...] = ()
    control: str | None = None
    fuser: FuserName | None = None
    templates: tuple[str, ...] = ()
    k: int | None = Field(None, ge=1)
    search: Mode | None = None
    fusion: Mode | None = None
    gate: bool | None = None
    side: Side | None = None
    dev: str | None = None
    distractors: str | None = None
    captions: str | None = None
    label_key: str | None = None
    sections: tuple[SectionName, ...] = SECTIONS
    quick: bool = False
    memory_limit: int = Field(PAIRS_IN_RAM, ge=1)
    seed: int = Field(0, ge=0)

    @property
    def refinement(self) -> RefineHow:
        """k, search, fusion and gate."""
        return RefineHow(k=self.k, search=self.search, fusion=self.fusion, gate=self.gate)

    @property
    def draws(self) -> int:
        """Of the bootstrap."""
        return 200 if self.quick else 1000

    def command(self) -> str:
        """The command line that does it again."""
        parts = ["reco", "eval", "study", self.source]
        for name, value in self.model_dump(exclude={"source"}, exclude_defaults=True).items():
            parts += _option(name, value)
        return shlex.join(parts)

    def digest(self) -> str:
        """Of everything that changes a figure: a section of another digest is measured again."""
        return hashlib.sha256(self.model_dump_json(exclude={"sections"}).encode()).hexdigest()

    def write(self, folder: Path, digests: dict[str, str]) -> None:
        """Write ``config.json``, with the versions that are in use and digests of what was read."""
        made = {"versions": versions(), "digests": digests}
        with whole_file(folder / CONFIG) as part:
            part.write_text(json.dumps(self.model_dump(mode="json") | {"made": made}, indent=1), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> tuple[StudyConfig, dict[str, str]]:
        """Read what :meth:`write` wrote, and the digests of what was read then.

        Raises:
            ConfigError: not such a file.
        """
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            made = stored.pop("made", {})
            return cls.model_validate(stored), dict(made.get("digests", {}))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ConfigError(f"{path}: {where}: {first['msg']} (got {first['input']!r:.60})") from None
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise ConfigError(f"{path} is no configuration of a study: {error}. Give a run's {CONFIG}") from None


def parse_sections(names: str) -> tuple[SectionName, ...]:
    """Names of sections, with commas between them, in reading order.

    >>> parse_sections("harm,main")
    ('main', 'harm')

    Raises:
        ConfigError: an unknown one.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in SECTIONS]:
        raise ConfigError(f"unknown section {unknown[0]!r}: choose from {', '.join(SECTIONS)}")
    return tuple(name for name in SECTIONS if name in wanted)


def versions() -> dict[str, str]:
    """Of Python and the packages that make the figures."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _option(name: str, value: Any) -> list[str]:
    flag = {"models": "--model", "templates": "--template"}.get(name, "--" + name.replace("_", "-"))
    if isinstance(value, bool):
        return [flag if value else "--no-" + name.replace("_", "-")]
    if name == "sections":
        return [flag, ",".join(value)]
    values: Iterable[Any] = value if isinstance(value, tuple) else (value,)
    return [text for one in values for text in (flag, str(one))]
