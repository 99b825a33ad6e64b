"""A model folder: a Triton model repository and a manifest with the checksums of its files.

::

    triton_models/
      manifest.json      encoder, preprocessing, tokenizer, fusion, defaults, licences, checksums
      tokenizer.json
      clip_image/        config.pbtxt, 1/model.onnx    (B,H,W,3) uint8 -> (B,D)
      clip_text/                                       (B,L) int32 -> (B,D); large graphs also have 1/model.onnx.data
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
"""Version of the manifest."""
MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Policy(_Strict):
    """Default options of a refinement, chosen on a development split when the model was made.

    Attributes:
        k: neighbours per query.
        gate: whether the closed form limits each move to what the memory's calibration supports.
        coverage: share of queries whose answer the memory holds; None: unknown.
        refine: role -> modalities that are refined if the caller does not choose.
    """

    k: int = Field(MODEL_K, ge=1, le=1000)
    gate: bool = True
    coverage: float | None = Field(None, ge=0, le=1)
    refine: dict[Role, tuple[Modality, ...]] = {"query": MODALITIES, "candidate": ()}

    @model_validator(mode="before")
    @classmethod
    def _drop_caution(cls, fields: Any) -> Any:
        """Accept manifests from before ``coverage`` replaced ``caution``."""
        return {name: fields[name] for name in fields if name != "caution"} if isinstance(fields, dict) else fields


class FusionInfo(_Strict):
    """The fusion graphs and their training.

    Attributes:
        fuser: default method, which settings and requests may override.
        config: shape of the paper's layer.
        trained_on: source of the training pairs.
    """

    fuser: FuserName
    config: dict[str, Any] = {}
    trained_on: str = ""


class ModelFile(_Strict):
    """Size and checksum of one file of the folder.

    Attributes:
        size_bytes: size of the file.
        sha256: checksum of the file; a graph contains the checksum of its weights, so this covers both.
        weights: the second file of a large graph.
    """

    size_bytes: int = Field(ge=0)
    sha256: str
    weights: ModelFile | None = None

    @classmethod
    def of(cls, path: Path) -> ModelFile:
        """Measure a file, and the file of its weights if there is one."""
        weights_path = weights_file(path)
        weights = cls.of(weights_path) if weights_path.exists() else None
        return cls(size_bytes=path.stat().st_size, sha256=sha256_file(path), weights=weights)


class Manifest(_Strict):
    """The contents of ``manifest.json``.

    Attributes:
        format: version of this file.
        name: readable name of the encoder.
        digest: sha256 over the encoder's weights, preprocessing and tokenizer, but not over their storage format.
        dimension: dimension D of the vectors.
        templates: prompts of the encoder's training, with ``{}`` in place of a name; empty if unknown.
        graphs: graph name -> checksums of its ONNX files.
        tokenizer: checksum of ``tokenizer.json``; None for an API.
        matryoshka: shorter dimensions that the encoder was trained for; empty for most encoders.
        api: address of the API that is the encoder, without its key; empty if the folder has the encoder.
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
    def _check_matryoshka(self) -> Manifest:
        if (longest := max(self.matryoshka, default=0)) >= self.dimension:
            raise ConfigError(f"matryoshka has {longest}, which must be less than the dimension {self.dimension}")
        return self

    @property
    def defaults(self) -> RefineDefaults:
        """The default options of a refinement."""
        policy = self.policy
        return RefineDefaults(k=policy.k, gate=policy.gate, coverage=policy.coverage, fuser=self.fusion.fuser)

    @property
    def fusers(self) -> tuple[FuserName, ...]:
        """The methods that this folder can run; the closed form needs no graph."""
        layer = all(fusion_graph(side) in self.graphs for side in MODALITIES)
        return ("reco", "paper") if layer else ("reco",)

    @property
    def fingerprint(self) -> Fingerprint:
        """The fingerprint of the encoder, which its memories must have."""
        return Fingerprint(self.name, self.digest, self.dimension)


def clip_graph(modality: Modality) -> str:
    """Return the name of an encoder graph."""
    return f"clip_{modality}"


def fusion_graph(modality: Modality) -> str:
    """Return the name of a graph of the paper's layer."""
    return f"paper_{modality}"


GRAPHS = tuple(map(clip_graph, MODALITIES))
"""Graphs of every model folder; that of an API has none."""


@dataclass(frozen=True)
class Artifact:
    """A complete model folder."""

    folder: Path
    manifest: Manifest

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Artifact:
        """Read a model folder and check sizes and checksums of its files.

        Raises:
            ArtifactError: the folder, the manifest or a file is missing; a file is truncated or damaged; the manifest
                has another version or an invalid value.
        """
        root = in_home(folder)
        manifest = _read_manifest(root)
        if not manifest.api and (missing := sorted(set(GRAPHS) - set(manifest.graphs))):
            raise ArtifactError(f"{root / MANIFEST} has no graph {', '.join(missing)}: export the model again")
        artifact = cls(root, manifest)
        for path, file in artifact._files():
            _check_size(path, file)
        artifact.verify()
        return artifact

    @property
    def place(self) -> str:
        """The folder or the address of the API, for messages."""
        return self.manifest.api if self.manifest.api and not self.folder.is_dir() else str(self.folder)

    @property
    def tokenizer(self) -> Path:
        """Path of ``tokenizer.json``."""
        return self.folder / TOKENIZER

    def graph(self, name: str) -> Path:
        """Return the path of an ONNX graph."""
        return self.folder / name / "1" / "model.onnx"

    def verify(self) -> None:
        """Compare every file with its checksum.

        Raises:
            ArtifactError: a file differs from its checksum.
        """
        for path, file in self._files():
            if file and (checksum := sha256_file(path)) != file.sha256:
                raise ArtifactError(
                    f"{path} has sha256 {checksum[:12]}…, but {file.sha256[:12]}… in the manifest: the file was "
                    "changed or damaged, or belongs to another model. Copy it or export the model again"
                )

    def _files(self) -> Iterator[tuple[Path, ModelFile | None]]:
        """Yield the required files with their expected size and checksum."""
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
    text = path.read_bytes()  # pydantic checks UTF-8
    try:
        version = _Version.model_validate_json(text).format
        if version != FORMAT:
            raise ArtifactError(f"{path} has format {version}, and this version reads {FORMAT}: export the model again")
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field, value = ".".join(map(str, first["loc"])), show(first["input"])
        raise ArtifactError(f"{path} is not a manifest: {field} {in_words(first['msg'])} (got {value})") from None
    except ConfigError as error:  # an invalid combination of fields
        raise ArtifactError(f"{path} is not a manifest: {error}") from None


class _Version(BaseModel):
    format: int


def _check_size(path: Path, expected: ModelFile | None) -> None:
    if not path.is_file():
        raise ArtifactError(f"{path} is missing: copy it again, or export the model again: reco model export --help")
    if expected is not None and (size := path.stat().st_size) != expected.size_bytes:
        raise ArtifactError(
            f"{path} has {size:,} bytes, but {expected.size_bytes:,} in the manifest: the file is truncated or was "
            "replaced. Copy it or export the model again"
        )


@contextmanager
def whole_model(out: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``out``, which replaces ``out`` if the block succeeds and is removed otherwise.

    Raises:
        ArtifactError: ``out`` exists and is no model folder, or cannot be written.
    """
    if not out.name:
        raise ArtifactError(
            f"--out {str(out)!r} is the working directory, which cannot be replaced: name a folder in it"
        )
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
    """Whether a file is the manifest of a model; web pages have a ``manifest.json``, too."""
    try:
        content = json.loads(manifest.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"format", "digest", "graphs"} <= content.keys()


def _swap(staging: Path, out: Path) -> None:
    """Replace ``out`` by the finished folder."""
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
