"""What torchvision does not say of its classification data sets: the split to test on, and how to read class names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .classes import clean_name


def _first(synonyms: Any) -> str:
    return str(synonyms[0])


def _after_dash(name: str) -> str:
    return name.rpartition(" - ")[2]


def _flat(name: str) -> str:
    return name.replace("/", " ")


def _spaced(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)


@dataclass(frozen=True)
class Facts:
    """Of one data set.

    Attributes:
        split: where nothing is asked for: the one to test on that has labels.
        tidy: makes a name that people would write from an item of torchvision's list of classes.
        names: of the classes, where torchvision has no list of them.
        scipy: whether its labels are a ``.mat`` file.
    """

    split: str = "test"
    tidy: Callable[[Any], str] = str
    names: tuple[str, ...] | None = None
    scipy: bool = False


_DIGITS = tuple(map(str, range(10)))

SETS: Mapping[str, Facts] = {
    "CIFAR10": Facts(),
    "CIFAR100": Facts(),
    "Caltech101": Facts(),
    "Caltech256": Facts(tidy=lambda name: clean_name(name).removesuffix("-101")),  # 145.motorbikes-101
    "Country211": Facts(),
    "DTD": Facts(),
    "EuroSAT": Facts(tidy=_spaced),  # AnnualCrop
    "FER2013": Facts(),
    "FGVCAircraft": Facts(),
    "FashionMNIST": Facts(),
    "Flowers102": Facts(tidy=lambda name: name.rstrip("?"), scipy=True),
    "Food101": Facts(),
    "GTSRB": Facts(),
    "INaturalist": Facts(tidy=lambda name: " ".join(name.split("_")[-2:])),  # 00000_Animalia_…_Aglais_io
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
"""Those with one class per image and a use as zero-shot classification."""
