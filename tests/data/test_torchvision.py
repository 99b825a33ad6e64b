"""torchvision's data sets, in the layouts that its own classes read: names, labels, laziness, errors."""

from __future__ import annotations

import hashlib
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reco_plugin.data import read_labelled, read_pairs
from reco_plugin.data.torchvision_sets import SETS
from reco_plugin.errors import ConfigError, DataError, MissingExtra

pytest.importorskip("torch")
from torchvision import datasets

pytestmark = pytest.mark.torch


def picture(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (shade, 0, 0)).save(path)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def stanford_cars(root: Path, _: pytest.MonkeyPatch) -> None:
    from scipy.io import savemat

    base = root / "stanford_cars"
    (base / "devkit").mkdir(parents=True)
    rows = np.array([(2, "00001.jpg"), (1, "00002.jpg"), (2, "00003.jpg")], [("class", "u1"), ("fname", object)])
    savemat(base / "cars_test_annos_withlabels.mat", {"annotations": rows})
    names = np.array(["AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012"], object)
    savemat(base / "devkit" / "cars_meta.mat", {"class_names": names})
    for row in range(3):
        picture(base / "cars_test" / f"0000{row + 1}.jpg", row)


def flowers(root: Path, patch: pytest.MonkeyPatch) -> None:
    """torchvision compares check sums of the real files, so those of the tiny ones are put in their place."""
    from scipy.io import savemat

    base = root / "flowers-102"
    base.mkdir(parents=True)
    savemat(base / "imagelabels.mat", {"labels": [60, 1, 60, 102]})
    savemat(base / "setid.mat", {"trnid": [1, 4], "valid": [1, 4], "tstid": [2, 3]})
    for row in range(4):
        picture(base / "jpg" / f"image_{row + 1:05d}.jpg", row)
    known = {"label": "imagelabels.mat", "setid": "setid.mat"}
    files = {key: (name, md5(base / name)) for key, name in known.items()}
    patch.setattr(datasets.Flowers102, "_file_dict", datasets.Flowers102._file_dict | files)


def pets(root: Path, _: pytest.MonkeyPatch) -> None:
    base = root / "oxford-iiit-pet"
    write(base / "annotations" / "test.txt", "yorkshire_terrier_1 2 2 1\nAbyssinian_201 1 1 1\n")
    for row, name in enumerate(("yorkshire_terrier_1", "Abyssinian_201")):
        picture(base / "images" / f"{name}.jpg", row)


def cifar(root: Path, patch: pytest.MonkeyPatch) -> None:
    base = root / "cifar-10-batches-py"
    base.mkdir(parents=True)
    data = np.zeros((4, 3072), np.uint8)
    (base / "test_batch").write_bytes(pickle.dumps({"data": data, "labels": [1, 0, 1, 0]}))
    (base / "batches.meta").write_bytes(pickle.dumps({"label_names": ["airplane", "automobile"]}))
    patch.setattr(datasets.CIFAR10, "train_list", [])
    patch.setattr(datasets.CIFAR10, "test_list", [["test_batch", md5(base / "test_batch")]])
    patch.setattr(datasets.CIFAR10, "meta", datasets.CIFAR10.meta | {"md5": md5(base / "batches.meta")})


def imagenet(root: Path, _: pytest.MonkeyPatch) -> None:
    import torch

    root.mkdir(parents=True)
    torch.save(({"n01440764": ("tench", "Tinca tinca"), "n01443537": ("goldfish",)}, []), root / "meta.bin")
    picture(root / "val" / "n01440764" / "a.JPEG", 0)
    picture(root / "val" / "n01443537" / "b.JPEG", 1)


def caltech(root: Path, _: pytest.MonkeyPatch) -> None:
    for name in ("001.ak47", "002.motorbikes-101"):
        picture(root / "caltech256" / "256_ObjectCategories" / name / f"{name[:3]}_0001.jpg", 1)


def eurosat(root: Path, _: pytest.MonkeyPatch) -> None:
    picture(root / "eurosat" / "2750" / "AnnualCrop" / "1.jpg", 1)
    picture(root / "eurosat" / "2750" / "Forest" / "1.jpg", 1)


def mnist(root: Path, _: pytest.MonkeyPatch) -> None:
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, 2, 28, 28) + bytes(2 * 28 * 28))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, 2) + bytes([7, 1]))


Layout = Callable[[Path, pytest.MonkeyPatch], None]
LAYOUTS: dict[str, tuple[Layout, Sequence[int], Sequence[str]]] = {
    "CIFAR10": (cifar, [1, 0, 1, 0], ["airplane", "automobile"]),
    "Caltech256": (caltech, [0, 1], ["ak47", "motorbikes"]),
    "EuroSAT": (eurosat, [0, 1], ["Annual Crop", "Forest"]),
    "ImageNet": (imagenet, [0, 1], ["tench", "goldfish"]),
    "MNIST": (mnist, [7, 1], ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]),
    "OxfordIIITPet": (pets, [1, 0], ["Abyssinian", "Yorkshire Terrier"]),
    "StanfordCars": (stanford_cars, [1, 0, 1], ["AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012"]),
}


def source(name: str, root: Path, *options: str) -> str:
    set_name, _, own = name.partition("?")
    return f"torchvision:{set_name}?" + "&".join(filter(None, (own, f"root={root}", *options)))


@pytest.mark.parametrize("name", LAYOUTS)
def test_labels_names_and_images_are_those_of_torchvision(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, labels, classes = LAYOUTS[name]
    build(tmp_path / "root", monkeypatch)
    found = read_labelled(source(name, tmp_path / "root"))
    assert found.labels.tolist() == list(labels)
    assert found.classes == tuple(classes)
    assert (len(found.images), found.templates) == (len(labels), ())
    assert {image.mode for image in found.images} == {"L" if name == "MNIST" else "RGB"}
    assert len(set(found.query_ids)) == len(labels)


def test_flowers_has_its_102_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flowers(tmp_path, monkeypatch)
    found = read_labelled(f"torchvision:Flowers102?root={tmp_path}")
    assert (found.name, len(found.classes), found.labels.tolist()) == ("Flowers102 test", 102, [0, 59])
    assert (found.classes[0], found.classes[59]) == ("pink primrose", "pink-yellow dahlia")  # theirs ends in "?"
    assert read_labelled(f"torchvision:Flowers102?root={tmp_path}&split=train").labels.tolist() == [59, 101]


def test_the_labels_that_are_read_without_images_are_those_of_the_items(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twin: torchvision's own item access, which opens every image."""
    stanford_cars(tmp_path, monkeypatch)
    cifar(tmp_path, monkeypatch)
    pets(tmp_path, monkeypatch)
    twins = {
        "StanfordCars": datasets.StanfordCars(tmp_path, "test"),
        "CIFAR10": datasets.CIFAR10(tmp_path, train=False),
        "OxfordIIITPet": datasets.OxfordIIITPet(tmp_path, "test"),
    }
    for name, dataset in twins.items():
        found = read_labelled(f"torchvision:{name}?root={tmp_path}")
        assert found.labels.tolist() == [int(dataset[row][1]) for row in range(len(dataset))]
        assert [image.tobytes() for image in found.images] == [dataset[row][0].tobytes() for row in range(len(dataset))]


def test_images_are_opened_when_they_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stanford_cars(tmp_path, monkeypatch)
    (tmp_path / "stanford_cars" / "cars_test" / "00002.jpg").write_bytes(b"no image")
    found = read_labelled(f"torchvision:StanfordCars?root={tmp_path}")
    assert found.images[-1].getpixel((0, 0))[0] < 8
    assert len(found.images[:1]) == 1
    with pytest.raises(IndexError):
        found.images[3]
    with pytest.raises(DataError, match="image 1 of StanfordCars cannot be read"):
        found.images[1]


def test_a_memory_of_the_training_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flowers(tmp_path, monkeypatch)
    pairs = read_pairs(f"torchvision:Flowers102?root={tmp_path}&split=train")
    first, second = pairs
    assert (first.id, second.id) == ("Flowers102/train/0", "Flowers102/train/1")  # never an id of the test split
    assert second.text == "a photo of a blackberry lily."
    assert second.payload == {"caption": second.text, "class": "blackberry lily"}


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("flowers102", DataError, r"no classification data set 'flowers102': did you mean 'Flowers102'"),
        ("StanfordCars?root=.", DataError, r"cannot be read from \.: Dataset not found\.; say root=DIR, or download=1"),
        ("OxfordIIITPet?root=pets&split=tset", DataError, r"Unknown value 'tset' for argument split.*trainval"),
        ("CIFAR10?root=pets&split=val", DataError, "has no split 'val': choose test or train"),
        ("OxfordIIITPet?root=pets&slpit=test", ConfigError, r"no option 'slpit' \(did you mean 'split'"),
    ],
)
def test_what_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, error: type[Exception], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    pets(tmp_path / "pets", monkeypatch)
    with pytest.raises(error, match=message):
        read_labelled(f"torchvision:{name}")


def test_a_set_without_splits_is_hidden_from_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether split=all is written or not, the ids of queries and of memory are the same."""
    eurosat(tmp_path, monkeypatch)
    found = read_labelled(f"torchvision:EuroSAT?root={tmp_path}")
    assert (found.name, found.query_ids) == ("EuroSAT all", ("EuroSAT/all/0", "EuroSAT/all/1"))
    assert tuple(pair.id for pair in read_pairs(f"torchvision:EuroSAT?root={tmp_path}&split=all")) == found.query_ids


def test_every_name_is_one_of_torchvision() -> None:
    assert [name for name in SETS if not hasattr(datasets, name)] == []


def test_without_torchvision_the_install_line_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(MissingExtra, match=r"needs torchvision.*reco-plugin\[datasets\]"):
        read_labelled(f"torchvision:CIFAR10?root={tmp_path}")


def test_other_sources_load_neither_torch_nor_torchvision(tmp_path: Path) -> None:
    picture(tmp_path / "fox" / "a.png", 0)
    code = (
        f"from reco_plugin.data import read_labelled; read_labelled({str(tmp_path)!r}); import sys; print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "reco_plugin.data.labelled" in loaded
    assert {"torch", "torchvision", "scipy"} & set(loaded) == set()
