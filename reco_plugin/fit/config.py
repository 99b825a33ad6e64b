"""What a fit is asked to do: everything that is needed to do it again."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..defaults import BATCH, MAX_LOSS, PAIRS_IN_RAM, SAME_IMAGE, STEPS
from ..errors import ConfigError
from ..files import whole_file

CONFIG = "config.json"
FuserChoice: TypeAlias = Literal["auto", "all", "training-free", "mean", "prototype", "reco", "paper"]
FitSide: TypeAlias = Literal["text", "image", "names"]
"""What may be refined: text queries, image queries, and class names, which compete as candidates."""
SIDES: tuple[FitSide, ...] = get_args(FitSide)
TaskName: TypeAlias = Literal["text->image", "image->text", "image->name"]
Goal: TypeAlias = Literal["search", "classify"]
"""search: text and image queries come first. classify: the names that images are classified among."""
KINDS: dict[str, tuple[str, ...]] = {
    "auto": ("training-free", "mean", "prototype", "reco"),
    "all": ("training-free", "mean", "prototype", "reco", "paper"),
}
"""What stands for several; the paper's layer takes minutes, so it is trained only when it is asked for."""
_K_GRID = (5, 10, 20)


class FitConfig(BaseModel):
    """One fit; field names are the options of ``reco fit``.

    Attributes:
        source: pairs.
        model: model folder whose encoder is kept.
        group: payload column that says what a pair shows; None: its caption.
        fuser: which candidates are tried.
        goal: what the model is for; decides where one candidate is better at this and another at that.
        k: neighbours; None: 5, 10 and 20 are tried.
        validation, test: shares of the groups.
        max_loss: recall at 1 that a side may lose where the memory knows nothing of what is asked for.
        near_duplicate: image cosine from which a pair of the memory is hidden from a query.
        max_error_rate: share of rows that may be rejected.
        max_pairs: rows that are used, in whole groups; 0 for all.
        seed: of split, choices and bootstrap.
        steps, batch, precision, device: of the fusion ``paper``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    model: str
    group: str | None = None
    fuser: FuserChoice = "auto"
    goal: Goal = "search"
    k: int | None = Field(None, ge=1)
    validation: float = Field(0.15, gt=0, lt=1)
    test: float = Field(0.15, gt=0, lt=1)
    max_loss: float = Field(MAX_LOSS, ge=0, le=1)
    near_duplicate: float = Field(SAME_IMAGE, ge=0, le=1)
    max_error_rate: float = Field(0.05, ge=0, le=1)
    max_pairs: int = Field(PAIRS_IN_RAM, ge=0)
    seed: int = Field(0, ge=0)
    steps: int = Field(STEPS, ge=0)
    batch: int = Field(BATCH, ge=2)
    precision: Literal["fp32", "bf16"] = "fp32"
    device: str = "cpu"

    @model_validator(mode="after")
    def _leaves_something(self) -> FitConfig:
        if self.validation + self.test > 0.8:
            raise ValueError(
                f"validation {self.validation} and test {self.test} leave less than a fifth to fit on: give less"
            )
        return self

    @property
    def kinds(self) -> tuple[str, ...]:
        """Names of the candidates."""
        return KINDS.get(self.fuser, (self.fuser,))

    @property
    def ks(self) -> tuple[int, ...]:
        """Numbers of neighbours that are tried."""
        return _K_GRID if self.k is None else (self.k,)

    def command(self, out: Path) -> str:
        """The command line that does it again."""
        parts = ["reco", "fit", self.source]
        for name, value in self.model_dump(exclude={"source"}, exclude_defaults=True).items():
            parts += ["--" + name.replace("_", "-"), str(value)]
        return shlex.join([*parts, "--out", str(out)])

    def check(self, folder: Path) -> None:
        """Find nothing in a run's folder, or the same configuration.

        Raises:
            ConfigError: the folder is a file, or holds something else or a run of another configuration.
        """
        path = folder / CONFIG
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"{folder} is a file: --out takes a folder")
        if not path.is_file() and folder.exists() and any(not p.name.startswith(".") for p in folder.iterdir()):
            raise ConfigError(f"{folder} exists and is no run of `reco fit`: choose another --out")
        if path.is_file() and (changed := self._changed(path)):
            raise ConfigError(
                f"{folder} holds a run of another configuration ({path} differs in {changed}): choose another "
                "--out or delete it"
            )

    def claim(self, folder: Path) -> None:
        """Write ``config.json`` into a run's folder, or find the same one there.

        Raises:
            ConfigError: see :meth:`check`.
            DataError: it cannot be written to.
        """
        self.check(folder)
        if (path := folder / CONFIG).is_file():
            return
        with whole_file(path) as part:
            folder.mkdir(parents=True, exist_ok=True)
            part.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")

    def _changed(self, path: Path) -> str:
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} is damaged, delete it: {error}") from None
        mine = self.model_dump(mode="json")
        if not isinstance(stored, dict):
            return "everything"
        return ", ".join(name for name in sorted({*mine, *stored}) if mine.get(name) != stored.get(name))


def checked_config(**options: object) -> FitConfig:
    """A configuration of these options.

    Raises:
        ConfigError: naming the option and its value.
    """
    try:
        return FitConfig.model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        where = "--" + str(first["loc"][0]).replace("_", "-") if first["loc"] else ""
        raise ConfigError(f"{where} {first['msg'].removeprefix('Value error, ')}".strip()) from None
