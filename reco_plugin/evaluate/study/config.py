"""Configuration of a study: everything needed to reproduce it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from pydantic import ValidationError, create_model, field_validator

from ...defaults import PAIRS_IN_RAM
from ...errors import ConfigError
from ...options import RefineDefaults, RefineHow, check_options, option_fields, options_of
from ...run_config import RunConfig, option
from ...types import FuserName
from ...values import in_words
from ..task import Side

SectionName = Literal["main", "retrieval", "ablations", "baselines", "alternatives", "harm", "gate", "cost", "cases"]
SECTIONS: tuple[SectionName, ...] = get_args(SectionName)


if TYPE_CHECKING:

    class _Refining(RunConfig):
        """The options of a refinement."""

        fuser: FuserName | None = None

else:  # without descriptions: their flags are those of all commands
    _Refining = create_model("_Refining", __base__=RunConfig, **option_fields(RefineDefaults, described=False))


class StudyConfig(_Refining):
    """One study, with the flags of the other evaluations for data and refinement; None: the model's defaults."""

    spelled: ClassVar[str] = "reco eval study"

    memory: str | None = None  # folder or URL
    memory_from: str | None = None  # pairs to build a memory of, in RAM
    models: tuple[str, ...] = option(
        (),
        "Model folder; repeat it for further trainings of the same encoder.",
        flag="--model",
        unset="RECO_MODEL or ./triton_models, else the quickstart model",
    )
    control: str | None = option(None, "Model whose fusion was trained without retrieval, to compare.", metavar="DIR")
    templates: tuple[str, ...] = option(
        (),
        "Prompt with {} for the class name; repeat it for more.",
        flag="--template",
        unset="of the source, or of the model",
    )
    side: Side | None = option(None, "What is refined outside of the main table.", unset="the model's policy")
    dev: str | None = option(
        None, "Labelled set to choose baselines on.", metavar="SOURCE", unset="half of the classes"
    )
    distractors: str | None = option(None, "Pairs of another domain, for a memory that cannot help.", metavar="PAIRS")
    captions: str | None = option(None, "Images with captions, for the section on retrieval.", metavar="SOURCE")
    label_key: str | None = option(
        None, "Payload key that names a pair's class.", metavar="KEY", unset="words of the caption"
    )
    sections: tuple[SectionName, ...] = option(
        SECTIONS, f"Some of {', '.join(SECTIONS)}, with commas.", joined=True, unset="all"
    )
    full: bool = option(False, "More points on curves, variants, cases and bootstrap draws; takes a few times as long.")
    memory_limit: int = option(
        PAIRS_IN_RAM, "Pairs held in RAM where many memories are needed; of a larger one, a random choice.", ge=1
    )
    seed: int = option(0, "Seed of every random choice.", ge=0)

    @field_validator("sections", mode="before")
    @classmethod
    def _split(cls, names: Any) -> Any:
        """Split names at commas; sort them into reading order."""
        if not isinstance(names, str):
            return names
        wanted = [name.strip() for name in names.split(",") if name.strip()]
        if unknown := [name for name in wanted if name not in SECTIONS]:
            raise ValueError(f"unknown section {unknown[0]!r}: choose from {', '.join(SECTIONS)}")
        return tuple(name for name in SECTIONS if name in wanted) or SECTIONS

    @property
    def refinement(self) -> RefineHow:
        """The options of a refinement that are said, but for the fusion, which is what is studied."""
        said = {name: getattr(self, name) for name in options_of(RefineDefaults) if name != "fuser"}
        return check_options(said)

    @property
    def quick(self) -> bool:
        """Whether few points, variants, cases and draws will do."""
        return not self.full

    @property
    def draws(self) -> int:
        """Number of draws of the bootstrap."""
        return 200 if self.quick else 1000

    def digest(self) -> str:
        """Digest of everything that changes a figure: a section of another digest is measured again."""
        return hashlib.sha256(self.model_dump_json(exclude={"sections"}).encode()).hexdigest()

    @classmethod
    def read(cls, path: Path) -> tuple[StudyConfig, dict[str, str]]:
        """Read the configuration of a run, and the digests of its inputs.

        Raises:
            ConfigError: the file is no configuration of a study.
        """
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            made = stored.pop("made", {})
            return cls.model_validate(stored), dict(made.get("digests", {}))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            shown = "" if ", got " in first["msg"] else f" (got {first['input']!r:.60})"
            raise ConfigError(f"{path}: {where}: {in_words(first['msg'])}{shown}") from None
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise ConfigError(f"{path} is no configuration of a study: {error}. Give a run's {cls.file}") from None
