"""Frozen vectors of a set, encoded where it holds raw images or texts, class names in prompts; and the same, refined.

An encoder may keep its vectors in a folder, in files that are complete or absent, so that a second run on the same data
encodes nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Unpack

import numpy as np
import numpy.typing as npt

from ..data import Captioned, Labelled
from ..data.labelled import TemplatesFrom
from ..encode import Progress
from ..errors import ConfigError, DataError, MemoryStoreError
from ..files import allocate, as_data_error, digest_images, digest_texts, whole_file
from ..options import RefineHow, RefineOptions
from ..reco import Reco
from ..score import Refines
from ..types import Coverage, Fingerprint, ImageInput, Modality, Moves, Refinement, Role, Vectors
from ..values import TEMPLATES, fill
from .task import Task, TaskItems, task_of

_ROWS = 1 << 12  # of a part: 8 MiB at D=512


def stored_vectors(
    path: Path,
    shape: tuple[int, int],
    encode: Callable[[slice], Vectors],
    *,
    already: Callable[[int], None] = lambda _: None,
) -> npt.NDArray[np.float32]:
    """Open the vectors (N, D) of a file as a memory map, or encode them into it.

    Parts are kept in a folder beside the file until all are there, so an interrupted run continues. When two runs fill
    one file at the same time, one of them may fail; the file is correct in any case.

    Args:
        path: ends in ``.npy``; its folder is created. The name must identify the content and the encoder.
        shape: (N, D).
        encode: returns the vectors (n, D) of n rows.
        already: called with the number of rows of each part that exists.

    Returns:
        (N, D), read-only.
    """
    if path.exists():
        already(shape[0])
        return _open(path, shape)
    portions = path.with_name(f"{path.stem}.{_ROWS}")
    with as_data_error(f"{portions} cannot be made to keep vectors in"):
        portions.mkdir(parents=True, exist_ok=True)
    files = []
    for start in range(0, shape[0], _ROWS):
        rows = slice(start, min(start + _ROWS, shape[0]))
        files.append(portions / f"{start:09d}.npy")
        if files[-1].exists():
            already(rows.stop - start)
        else:
            with whole_file(files[-1]) as part:
                np.save(part, np.asarray(encode(rows), np.float32))
    _join(path, files, shape)
    shutil.rmtree(portions, ignore_errors=True)
    return _open(path, shape)


def _join(path: Path, files: list[Path], shape: tuple[int, int]) -> None:
    with whole_file(path) as part:
        whole = np.lib.format.open_memmap(part, mode="w+", dtype=np.float32, shape=shape)
        allocate(part)
        for number, file in enumerate(files):
            rows = slice(number * _ROWS, min((number + 1) * _ROWS, shape[0]))
            whole[rows] = _open(file, (rows.stop - rows.start, shape[1]))
        whole.flush()


def _open(path: Path, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    try:
        vectors: npt.NDArray[np.float32] = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read as stored vectors: {error}; remove it, and run again") from None
    if vectors.shape != shape or vectors.dtype != np.float32:
        raise DataError(f"{path} holds {vectors.dtype} {vectors.shape}, not float32 {shape}: remove it")
    return vectors


_QUERIES = 4096  # per call, which holds the vectors of all their neighbours: 80 MiB at K=10, D=512


class Encodes(Protocol):
    """A frozen CLIP."""

    def images(self, images: Sequence[ImageInput], progress: Progress) -> Vectors:
        """Encode N items; (N, D) unit-norm."""
        ...

    def texts(self, texts: Sequence[str], progress: Progress) -> Vectors:
        """Encode N items; (N, D) unit-norm."""
        ...


def silent(_: int) -> None:
    """No progress."""


def image_vectors(reco: Refines, images: Sequence[ImageInput] | Vectors, progress: Progress = silent) -> Vectors:
    """Frozen vectors (N, D) of images; vectors are returned unchanged."""
    return images if isinstance(images, np.ndarray) else encoder_of(reco, "images").images(images, progress)


def text_vectors(reco: Refines, texts: Sequence[str] | Vectors, progress: Progress = silent) -> Vectors:
    """Frozen vectors (M, D) of texts; vectors are returned unchanged."""
    return texts if isinstance(texts, np.ndarray) else encoder_of(reco, "texts").texts(texts, progress)


def refine_queries(reco: Refines, items: TaskItems, **options: Unpack[RefineHow]) -> TaskItems:
    """Refine queries (N, D), some thousand at a time: they do not depend on one another."""

    def refine_rows(rows: slice) -> Refinement:
        hidden = None if items.own is None else items.own[rows]
        return _check_refined(reco.refine(items.vectors[rows], modality=items.modality, exclude=hidden, **options))

    parts = [refine_rows(slice(start, start + _QUERIES)) for start in range(0, len(items.vectors), _QUERIES)]
    coverages = [part.coverage for part in parts if part.coverage is not None]
    vectors, moving = np.concatenate([part.vectors for part in parts]), [part.moves for part in parts]
    moves = (
        Moves.join([part for part in moving if part is not None]) if all(part is not None for part in moving) else None
    )
    return replace(items, vectors=vectors, coverage=Coverage.join(coverages) if coverages else None, moves=moves)


def refine_candidates(reco: Refines, items: TaskItems, **options: Unpack[RefineHow]) -> TaskItems:
    """Refine candidates (C, D), all in one call: they compete, so they are refined as a set."""
    found = _check_refined(
        reco.refine(items.vectors, modality=items.modality, role="candidate", exclude=items.own, **options)
    )
    return replace(items, vectors=found.vectors, coverage=found.coverage, moves=found.moves)


def _check_refined(result: Refinement) -> Refinement:
    """Refuse a degraded refinement: the figures would not show that its vectors are frozen."""
    if result.degraded:
        raise MemoryStoreError(
            f"refinement failed ({result.degraded}), and only refined vectors are measured here: "
            "see the warning above, or open the model with on_memory_failure='fail'"
        )
    return result


def count_items(labelled: Labelled) -> int:
    """Count the items to encode; a set without templates counts with one."""
    raw = 0 if isinstance(labelled.images, np.ndarray) else len(labelled.images)
    return raw + (len(labelled.classes) * max(1, len(labelled.templates)) if labelled.prompts is None else 0)


def count_captioned(captioned: Captioned) -> int:
    """Count the items to encode."""
    return sum(len(side) for side in (captioned.images, captioned.texts) if not isinstance(side, np.ndarray))


def encoder_of(reco: Refines, what: str) -> Encodes:
    """The frozen CLIP that encodes raw images and texts."""
    encoder: Encodes | None = getattr(reco, "encoder", None)
    if encoder is None:
        raise ConfigError(f"the set holds {what}, not vectors, and there is no encoder: open a model")
    return encoder


def templates_of(encoder: Encodes | None) -> tuple[str, ...]:
    """The prompts that an encoder was trained with; empty where not known."""
    templates: tuple[str, ...] = getattr(encoder, "templates", ())
    return templates


@dataclass(frozen=True)
class CachedEncoder:
    """Encodes what the folder does not hold yet; vectors are kept as float32, bit for bit.

    A file is named after the encoder's digest and the contents of all images or texts, in order: a set that was changed
    is encoded again, one that was moved is not. Files may be deleted at any time.
    """

    encoder: Encodes
    fingerprint: Fingerprint  # of the encoder
    folder: Path  # of the files; made when missing

    @property
    def templates(self) -> tuple[str, ...]:
        """Prompts that the CLIP was trained with."""
        return templates_of(self.encoder)

    def images(self, images: Sequence[ImageInput], progress: Progress = silent) -> Vectors:
        """Encode images, or read their vectors; (N, D) unit-norm."""
        path = self._path("image", digest_images(images))
        return self._encode_once(path, len(images), lambda rows: self.encoder.images(images[rows], progress), progress)

    def texts(self, texts: Sequence[str], progress: Progress = silent) -> Vectors:
        """Encode texts, or read their vectors; (N, D) unit-norm."""
        path = self._path("text", digest_texts(texts))
        return self._encode_once(path, len(texts), lambda rows: self.encoder.texts(texts[rows], progress), progress)

    def _path(self, what: str, digest: str) -> Path:
        return self.folder / self.fingerprint.digest[:16] / f"{what}-{digest[:32]}.npy"

    def _encode_once(self, path: Path, count: int, encode: Callable[[slice], Vectors], progress: Progress) -> Vectors:
        stored = stored_vectors(path, (count, self.fingerprint.dimension), encode, already=progress)
        return np.asarray(stored, np.float32)


@dataclass(frozen=True)
class CachingReco:
    """A model with cached frozen vectors; refinement is not cached, since it depends on the memory."""

    reco: Reco
    folder: Path  # of the vectors

    @property
    def encoder(self) -> CachedEncoder:
        """The frozen CLIP with its cache."""
        return CachedEncoder(self.reco.encoder, self.reco.manifest.fingerprint, self.folder)

    def refine(
        self, vectors: npt.ArrayLike, *, modality: Modality, role: Role = "query", **options: Unpack[RefineOptions]
    ) -> Refinement:
        """See :meth:`reco_plugin.reco.Reco.refine`."""
        return self.reco.refine(vectors, modality=modality, role=role, **options)


_WHOSE: Mapping[TemplatesFrom, str] = {
    "caller": "as asked for",
    "source": "from the source",
    "model": "from the model",
    "default": "by default: neither source nor model names any",
}


@dataclass(frozen=True)
class Prompts:
    """The templates in use, and where they are from."""

    templates: tuple[str, ...]  # with ``{}`` where the name goes
    templates_from: TemplatesFrom
    trained_with: tuple[str, ...] = ()  # the templates that the encoder was trained with, where known

    def to_dict(self) -> dict[str, Any]:
        """JSON-like values."""
        return {"templates": list(self.templates), "from": self.templates_from}

    def __str__(self) -> str:
        known = self.templates_from == "model" or not self.trained_with or set(self.trained_with) & set(self.templates)
        instead = "" if known else f"; the model was trained with {_some(self.trained_with)}"
        return f"{_some(self.templates)} ({_WHOSE[self.templates_from]}{instead})"


def _some(templates: tuple[str, ...]) -> str:
    return repr(templates[0]) + (f" and {len(templates) - 1} more" if len(templates) > 1 else "")


def prompts_of(labelled: Labelled, encoder: Encodes | None) -> Prompts | None:
    """The prompts of a set's class names; None where it holds prompt vectors."""
    if labelled.prompts is not None:
        return None
    return Prompts(labelled.templates, labelled.templates_from, templates_of(encoder))


def with_templates(reco: Refines, labelled: Labelled) -> Labelled:
    """The set with the model's templates where it has none of its own, or CLIP's where the model has none.

    Raises:
        ConfigError: class names without templates, and no encoder.
    """
    if labelled.prompts is not None or labelled.templates:
        return labelled
    if templates := templates_of(encoder_of(reco, "class names")):
        return replace(labelled, templates=templates, templates_from="model")
    return replace(labelled, templates=TEMPLATES, templates_from="default")


def prompt_vectors(reco: Refines, labelled: Labelled, progress: Progress = silent) -> Vectors:
    """One frozen vector (C, D) per class: the mean over the templates, normalised."""
    if labelled.prompts is not None:
        return labelled.prompts
    encoder, templates = encoder_of(reco, "class names"), with_templates(reco, labelled).templates
    prompts = ([fill(template, name) for name in labelled.classes] for template in templates)
    total = np.sum([encoder.texts(texts, progress) for texts in prompts], axis=0)
    return np.asarray(total / np.linalg.norm(total, axis=1, keepdims=True), np.float32)


def labelled_task(reco: Refines, labelled: Labelled, progress: Progress = silent) -> Task:
    """Make the classification task of a labelled set, of frozen vectors."""
    images = image_vectors(reco, labelled.images, progress)
    return task_of(labelled, images, prompt_vectors(reco, labelled, progress))
