"""torchvision's classification data sets, with the split to test on and readable class names."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError, DataError, need
from ..files import in_home
from ..values import did_you_mean
from .images import LazyImages
from .source import PREFIX, Location, clean_name

if TYPE_CHECKING:
    from PIL.Image import Image

_DIGITS = tuple(map(str, range(10)))
_EXTRA = "datasets"


def _first(synonyms: Any) -> str:
    return str(synonyms[0])


def _after_dash(name: str) -> str:
    return name.rpartition(" - ")[2]


def _flat(name: str) -> str:
    return name.replace("/", " ")


def _add_spaces(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)


@dataclass(frozen=True)
class Facts:
    """Facts about one data set."""

    split: str = "test"  # default: the labelled one to test on
    tidy: Callable[[Any], str] = str  # makes a readable name of an item of torchvision's list of classes
    names: tuple[str, ...] | None = None  # class names, where torchvision has no list
    scipy: bool = False  # whether its labels are in a ``.mat`` file


SETS: Mapping[str, Facts] = {
    "CIFAR10": Facts(),
    "CIFAR100": Facts(),
    "Caltech101": Facts(),
    "Caltech256": Facts(tidy=lambda name: clean_name(name).removesuffix("-101")),  # 145.motorbikes-101
    "Country211": Facts(),
    "DTD": Facts(),
    "EuroSAT": Facts(tidy=_add_spaces),  # AnnualCrop
    "FER2013": Facts(),
    "FGVCAircraft": Facts(),
    "FashionMNIST": Facts(),
    "Flowers102": Facts(tidy=lambda name: name.rstrip("?"), scipy=True),
    "Food101": Facts(),
    "GTSRB": Facts(),
    "ImageNet": Facts("val", tidy=_first),
    "Imagenette": Facts("val", tidy=_first),
    "KMNIST": Facts(),
    "MNIST": Facts(tidy=_after_dash),  # 0 - zero
    "OxfordIIITPet": Facts(),
    "PCAM": Facts(),
    "Places365": Facts("val", tidy=lambda name: _flat(name[3:])),  # /a/airport_terminal; test has no labels
    "QMNIST": Facts(tidy=_after_dash),
    "RenderedSST2": Facts(),
    "SEMEION": Facts(names=_DIGITS),
    "STL10": Facts(),
    "SUN397": Facts(tidy=_flat),
    "SVHN": Facts(names=_DIGITS, scipy=True),
    "StanfordCars": Facts(scipy=True),
    "USPS": Facts(names=_DIGITS),
}
"""Data sets with one class per image that suit zero-shot classification."""


@dataclass(frozen=True)
class TorchvisionSet:
    """N images of an open data set."""

    name: str  # with its split
    images: LazyImages
    labels: list[Any]  # N, unchecked
    classes: list[str] | None  # names that are known without a file
    ids: tuple[str, ...]  # N, so that memories of the same images have the same ids, and others do not
    folders: tuple[Path, ...]  # where files of class names and templates may lie, which precede torchvision's


def open_torchvision(source: Location) -> TorchvisionSet:
    """Read a classification data set of torchvision; images are opened on access.

    Options: ``root`` (as the constructor takes it, ``./data`` when left out), ``split`` (``test``, or ``val`` where
    there is no labelled test split), ``download=1`` (off by default), ``limit``, and flags of the constructor, as in
    ``small=1`` of Places365.
    """
    name = source.name.removeprefix(PREFIX)
    if name not in SETS:
        raise DataError(f"torchvision has no classification data set {name!r}: {did_you_mean(name, SETS)}")
    facts, datasets = SETS[name], need("torchvision.datasets", f"reading {source.name}", _EXTRA)
    if facts.scipy:
        need("scipy.io", f"reading {source.name}", _EXTRA)
    root, split = in_home(source.options.get("root", "data")), source.options.get("split", facts.split)
    made = getattr(datasets, name, None)
    if made is None:
        raise DataError(f"this version of torchvision has no {name}: pip install -U torchvision")
    arguments = _arguments(source, made, split)
    part = split if {"split", "train"} & arguments.keys() else "all"
    dataset = _open(source, made, root, arguments)
    labels = _labels(dataset)
    if any(value is None for value in labels):
        raise DataError(f"{source.name}: the split {split!r} has no labels; choose another with split=…")
    return TorchvisionSet(
        name=f"{name} {part}",
        images=LazyImages(len(dataset), lambda row: _image(dataset, row)),
        labels=labels,
        classes=_names(facts, dataset),
        ids=tuple(f"{name}/{part}/{row}" for row in range(len(dataset))),
        folders=(root / name, root),
    )


def _arguments(source: Location, made: Any, split: str) -> dict[str, Any]:
    """Arguments of the constructor, besides root."""
    has = inspect.signature(made).parameters
    flags = [name for name, one in has.items() if isinstance(one.default, bool) and name not in ("train", "download")]
    source.only("root", "split", "download", "limit", *flags)
    given: dict[str, Any] = {name: source.flag(name) for name in flags if name in source.options}
    if "split" in has:
        given["split"] = split
    elif "train" in has and split in ("test", "train"):
        given["train"] = split == "train"
    elif "train" in has or source.options.get("split", "all") != "all":
        which = "choose test or train" if "train" in has else "it has none at all, leave the option out"
        raise DataError(f"{source.name} has no split {split!r}: {which}")
    if source.flag("download"):
        if "download" not in has:
            raise ConfigError(f"{source.name} cannot be downloaded by torchvision: fetch it by hand")
        given["download"] = True
    return given


def _open(source: Location, made: Any, root: Path, arguments: dict[str, Any]) -> Any:
    wants = arguments.get("download", False)
    if not wants and not root.is_dir():  # some constructors create it
        raise DataError(f"{source.name}: the folder {root} does not exist; give another with root=DIR")
    try:
        return made(root, **arguments)
    except (RuntimeError, OSError, ValueError) as error:
        hint = "" if wants or isinstance(error, ValueError) else "; say root=DIR, or download=1 to fetch it there"
        raise DataError(f"{source.name} cannot be read from {root}: {error}{hint}") from None


def _names(facts: Facts, dataset: Any) -> list[str] | None:
    """Class names that are known without a file; None where there are none."""
    if facts.names is not None:
        return list(facts.names)
    held = (getattr(dataset, attribute, None) for attribute in ("classes", "categories", "all_categories"))
    found = next((names for names in held if names), None)
    return None if found is None else [facts.tidy(item) for item in found]


def _labels(dataset: Any) -> list[Any]:
    for attribute in ("_labels", "labels", "targets", "y"):
        values = getattr(dataset, attribute, None)
        if values is not None and len(values) == len(dataset):
            return list(np.asarray(values).tolist())
    for attribute in ("_samples", "samples"):
        if len(rows := getattr(dataset, attribute, ())) == len(dataset):
            return [row[1] for row in rows]
    return [dataset[row][1] for row in range(len(dataset))]  # opens every image once


def _image(dataset: Any, row: int) -> Image:
    try:
        image: Image = dataset[row][0]
        image.load()  # some data sets leave the file open
    except OSError as error:
        raise DataError(f"image {row} of {type(dataset).__name__} cannot be read: {error}") from None
    return image
