"""A model folder: a Triton model repository with a manifest of everything in it.

::

    triton_models/
      manifest.json      encoder, preprocessing, tokenizer, fusion, defaults, licences, checksums
      tokenizer.json
      clip_image/        config.pbtxt, 1/model.onnx    (B,H,W,3) uint8 -> (B,D)
      clip_text/                                       (B,L) int32 -> (B,D); a large one has 1/model.onnx.data, too
      paper_image/                                     query, neighbours, similarity, trust -> refined, weights
      paper_text/
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..defaults import MODEL_K
from ..errors import ArtifactError, ConfigError
from ..files import in_home, sha256_file, weights_file
from ..options import RefineDefaults
from ..types import MODALITIES, Fingerprint, FuserName, Modality, Role
from ..values import DIMENSIONS, in_words, show
from .preprocess import ImageConfig, TextConfig

FORMAT = 1
"""Of the manifest."""
MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Policy(_Strict):
    """Defaults of a refinement, chosen on a development split when the model was made.

    Attributes:
        k: neighbours per query.
        gate: whether the closed form moves only as far as the memory's own pairs justify.
        coverage: share of what is asked for that the memory holds; None: nobody said.
        refine: role -> modalities that are refined when the caller does not say.
    """

    k: int = Field(MODEL_K, ge=1, le=1000)
    gate: bool = True
    coverage: float | None = Field(None, ge=0, le=1)
    refine: dict[Role, tuple[Modality, ...]] = {"query": MODALITIES, "candidate": ()}

    @model_validator(mode="before")
    @classmethod
    def _ignore_caution(cls, given: Any) -> Any:
        """Read manifests that were written before ``coverage`` replaced ``caution``."""
        return {name: one for name, one in given.items() if name != "caution"} if isinstance(given, dict) else given


class FusionInfo(_Strict):
    """What the fusion graphs are and how they were made.

    Attributes:
        fuser: which one refines unless the settings or a request say otherwise.
        config: shape of the paper's layer.
        trained_on: source of the training pairs.
    """

    fuser: FuserName
    config: dict[str, Any] = {}
    trained_on: str = ""


class ModelFile(_Strict):
    """Size and checksum of one file of the folder.

    Attributes:
        size_bytes: of the file.
        sha256: of the file; the checksum of a graph covers its weights, whose own one it holds.
        weights: the second file of a large graph.
    """

    size_bytes: int = Field(ge=0)
    sha256: str
    weights: ModelFile | None = None

    @classmethod
    def of(cls, path: Path) -> ModelFile:
        """Measure a file, and that of its weights where a graph has one."""
        second = weights_file(path)
        weights = cls.of(second) if second.exists() else None
        return cls(size_bytes=path.stat().st_size, sha256=sha256_file(path), weights=weights)


class Manifest(_Strict):
    """The contents of ``manifest.json``.

    Attributes:
        format: version of this file.
        name: readable name of the encoder.
        digest: sha256 over the encoder's weights, preprocessing and tokenizer (not over their storage format).
        dimension: D.
        templates: prompts that the encoder was trained with, ``{}`` where a name goes; empty where not known.
        graphs: graph name -> checksums of its ONNX file or files.
        tokenizer: checksum of ``tokenizer.json``; an API has none.
        matryoshka: dimensions that vectors may be cut to, since the encoder was trained for it; none for most.
        api: address of the API that is the encoder, without its key; empty where it is in the folder.
    """

    format: int = FORMAT
    name: str
    digest: str
    dimension: int = Field(ge=1, le=DIMENSIONS)
    image: ImageConfig
    text: TextConfig
    templates: tuple[Annotated[str, Field(pattern=r"\{c?\}")], ...] = ()
    fusion: FusionInfo
    policy: Policy = Policy()
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    graphs: dict[str, ModelFile]
    tokenizer: ModelFile | None = None
    licenses: tuple[str, ...] = ()
    made_with: dict[str, str] = {}
    matryoshka: tuple[Annotated[int, Field(ge=1, le=DIMENSIONS)], ...] = ()
    api: str = ""

    @model_validator(mode="after")
    def _cuts_are_shorter(self) -> Manifest:
        if (longest := max(self.matryoshka, default=0)) >= self.dimension:
            raise ConfigError(f"matryoshka has {longest}, and vectors of {self.dimension} dimensions are cut to fewer")
        return self

    @property
    def defaults(self) -> RefineDefaults:
        """The options of a refinement that the model was made for."""
        policy = self.policy
        return RefineDefaults(k=policy.k, gate=policy.gate, coverage=policy.coverage, fuser=self.fusion.fuser)

    @property
    def fusers(self) -> tuple[FuserName, ...]:
        """The fusions that this folder can run; the closed form always, since it needs no graph."""
        layer = all(fusion_graph(side) in self.graphs for side in MODALITIES)
        return ("reco", "paper") if layer else ("reco",)

    @property
    def fingerprint(self) -> Fingerprint:
        """The fingerprint that a memory of this encoder must have."""
        return Fingerprint(self.name, self.digest, self.dimension)


def clip_graph(modality: Modality) -> str:
    """Name of an encoder graph."""
    return f"clip_{modality}"


def fusion_graph(modality: Modality) -> str:
    """Name of a graph of the paper's layer."""
    return f"paper_{modality}"


GRAPHS = tuple(map(clip_graph, MODALITIES))
"""Graphs that every model folder has, but that of an API."""


@dataclass(frozen=True)
class Artifact:
    """A complete model folder."""

    folder: Path
    manifest: Manifest

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Artifact:
        """Read a model folder and check that its files are present, complete and unchanged, see :meth:`verify`.

        Raises:
            ArtifactError: missing folder, manifest or file; truncated or damaged file; manifest of another version
                or with invalid values.
        """
        root = in_home(folder)
        manifest = _read_manifest(root)
        if not manifest.api and (lacking := sorted(set(GRAPHS) - set(manifest.graphs))):
            raise ArtifactError(
                f"{root / MANIFEST} names no {', '.join(lacking)}: it is not complete. Export the model again."
            )
        artifact = cls(root, manifest)
        for path, file in artifact._files():
            _check_size(path, file)
        artifact.verify()
        return artifact

    @property
    def place(self) -> str:
        """The folder, or the address of the API, for people."""
        return self.manifest.api if self.manifest.api and not self.folder.is_dir() else str(self.folder)

    @property
    def tokenizer(self) -> Path:
        """The tokenizers-library file of the text encoder."""
        return self.folder / TOKENIZER

    def graph(self, name: str) -> Path:
        """Path of one ONNX graph."""
        return self.folder / name / "1" / "model.onnx"

    def verify(self) -> None:
        """Compare every file with its checksum.

        Raises:
            ArtifactError: a file differs from what was exported.
        """
        for path, file in self._files():
            if file and (found := sha256_file(path)) != file.sha256:
                raise ArtifactError(
                    f"{path} has sha256 {found[:12]}…, the manifest says {file.sha256[:12]}…: "
                    "the file was changed or damaged after the export, or is of another model. Copy it again, or "
                    "export the model again."
                )

    def _files(self) -> Iterator[tuple[Path, ModelFile | None]]:
        """The files that must be there, with their expected size and checksum."""
        for name, graph in self.manifest.graphs.items():
            yield self.graph(name), graph
            if graph.weights:
                yield weights_file(self.graph(name)), graph.weights
        if not self.manifest.api:
            yield self.tokenizer, self.manifest.tokenizer


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json``."""
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")


def _read_manifest(root: Path) -> Manifest:
    path = root / MANIFEST
    if not path.is_file():
        raise ArtifactError(
            f"no model at {str(root)!r}: {MANIFEST} is missing. Set RECO_MODEL (or --model) to the folder that "
            "`reco model export --out` wrote, or to quickstart for the small model that comes with reco-plugin."
        )
    text = path.read_bytes()  # pydantic refuses what is not UTF-8
    try:
        version = _Version.model_validate_json(text).format
        if version != FORMAT:
            raise ArtifactError(
                f"{path} has format {version}, this version reads {FORMAT}: export the model again with this version."
            )
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where, found = ".".join(map(str, first["loc"])), show(first["input"])
        raise ArtifactError(f"{path} is not a manifest: {where} {in_words(first['msg'])} (got {found})") from None
    except ConfigError as error:  # what the preprocessing takes from it
        raise ArtifactError(f"{path} is not a manifest: {error}") from None


class _Version(BaseModel):
    format: int


def _check_size(path: Path, expected: ModelFile | None) -> None:
    if not path.is_file():
        raise ArtifactError(f"{path} is missing: copy it again, or export the model again: reco model export --help")
    if expected is not None and (found := path.stat().st_size) != expected.size_bytes:
        raise ArtifactError(
            f"{path} has {found:,} bytes, the manifest says {expected.size_bytes:,}: the file is truncated or was "
            "replaced. Copy it again or export the model again."
        )


@contextmanager
def whole_model(out: Path) -> Iterator[Path]:
    """Yield a folder beside ``out`` to write to; it replaces ``out`` when the block succeeds, else is removed.

    Raises:
        ArtifactError: ``out`` exists and is no model folder, or cannot be written.
    """
    if not out.name:  # it cannot be replaced
        raise ArtifactError(f"--out {str(out)!r} is the working directory: name a folder in it")
    empty = out.is_dir() and not any(out.iterdir())
    if out.exists() and not empty and not _is_model(out / MANIFEST):
        raise ArtifactError(f"{out} exists and is no model folder: choose another --out")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise ArtifactError(f"{out} cannot be written: {error.strerror or error}") from None
    try:
        yield staging
        _swap(staging, out)
    except OSError as error:
        raise ArtifactError(f"{out} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _is_model(manifest: Path) -> bool:
    """Whether a file is a model's manifest, and not that of a web page."""
    try:
        content = json.loads(manifest.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"format", "digest", "graphs"} <= content.keys()


def _swap(staging: Path, out: Path) -> None:
    """Replace the target by the finished folder."""
    staging.chmod(0o755)
    old = out.with_name(f".{out.name}.old.{os.getpid()}")
    if out.exists():
        out.rename(old)
    try:
        staging.rename(out)
    except BaseException:
        if old.exists():
            old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)
