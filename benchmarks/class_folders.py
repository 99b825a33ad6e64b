"""Write a classification set of torchvision as a folder per class, which ``reco eval`` reads, and as a table of pairs.

    python -m benchmarks.class_folders Flowers102 --options '{"split": "test"}' --out flowers/test
    reco eval flowers/test

``pairs.csv`` fills a memory. Edit ``classes.txt`` if the names are no words. Needs torchvision, and scipy for labels in
``.mat`` files.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any


def write_folders(dataset: Any, out: Path) -> None:
    """Write each image to ``NUMBER/NAME-ROW.png``, with ``classes.txt`` and ``pairs.csv`` beside the folders.

    Args:
        dataset: gives (image, number of its class) by row.
        out: the new folder; its name begins the names of images, so that two splits have no id in common.
    """
    names = getattr(dataset, "classes", None) or getattr(dataset, "categories", None)
    if names is None:
        raise SystemExit(f"{type(dataset).__name__} names no classes: write its folders and classes.txt by hand")
    classes = [name if isinstance(name, str) else name[0] for name in names]  # ImageNet has several names a class
    out.mkdir(parents=True)
    (out / "classes.txt").write_text("\n".join(classes) + "\n", encoding="utf-8")
    with (out / "pairs.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(("image", "text", "class"))
        for row in range(len(dataset)):
            image, label = dataset[row]
            path = out / f"{label:05d}" / f"{out.name}-{row}.png"
            path.parent.mkdir(exist_ok=True)
            image.save(path)
            table.writerow((path.relative_to(out), f"a photo of a {classes[label]}.", classes[label]))


def main() -> None:
    """Open the set that the command line names, and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="class of torchvision.datasets")
    parser.add_argument("--root", default="data", help="its files; default: %(default)s")
    parser.add_argument("--options", default={}, type=json.loads, help="of the class, as in '{\"download\": true}'")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    from torchvision import datasets

    write_folders(getattr(datasets, given.name)(given.root, **given.options), given.out)


if __name__ == "__main__":
    main()
