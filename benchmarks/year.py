"""A year of a shop's mornings: 365 times its table changes, and `reco memory sync` brings the memory after it.

    python -m benchmarks.year [--days 365] [--before COMMIT] [--seed 0]

Some mornings bring an accident: a renamed column, half a table, a kill in the midst of a sync, a full disk, a folder
that is lost and comes back from a backup, a version that is taken back. Every 60 days the memory is built anew beside
the one in use. With ``--before``, the package of that commit runs the first half of the year. After each sync the
memory holds as many pairs as the table; at the end it equals one that is built from nothing.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from reco_plugin.quickstart.dataset import load
from reco_plugin.sources import read_records

ROOT = Path(__file__).resolve().parents[1]
PRODUCTS, DISK_MB = 300, 600
ACCIDENTS = ("column", "half", "kill", "disk", "backup", "previous")
Row = dict[str, str]


class Shop:
    """The table and the pictures of a shop, and commands on its memory."""

    def __init__(self, place: Path, package: Path, rng: random.Random) -> None:
        """Begin with :data:`PRODUCTS` products."""
        self.place, self.package, self.rng = place, package, rng
        self.drawings, self.rows, self.made = load(), dict[str, Row](), 0
        (place / "photos").mkdir()
        for _ in range(PRODUCTS):
            self.add()

    def add(self) -> None:
        """Put a product into the table, with a drawing that may be another's too."""
        drawing = self.rng.randrange(len(self.drawings.items))
        name, self.made = f"p{self.made:05d}", self.made + 1
        Image.fromarray(self.drawings.images[drawing]).save(self.place / "photos" / f"{name}.png")
        title = f"{self.drawings.items[drawing].caption}, no. {self.made}"
        self.rows[name] = {"id": name, "image": f"photos/{name}.png", "title": title, "price": f"{self.made % 90}"}

    def change(self) -> None:
        """What a day brings: new titles and prices, a renamed file, products that go and come."""
        for name in self.rng.sample(sorted(self.rows), 4):
            self.rows[name] |= {"title": f"{self.rows[name]['title']}, new", "price": f"{self.rng.randrange(90)}"}
        moved = self.rows[self.rng.choice(sorted(self.rows))]
        renamed = f"photos/{moved['id']}-{self.rng.randrange(10**6)}.png"
        (self.place / moved["image"]).rename(self.place / renamed)
        moved["image"] = renamed
        for name in self.rng.sample(sorted(self.rows), self.rng.randrange(4)):
            (self.place / self.rows.pop(name)["image"]).unlink()
        for _ in range(self.rng.randrange(4)):
            self.add()

    def write(self, rows: list[Row] | None = None, title: str = "title") -> None:
        """Write the table."""
        with (self.place / "catalogue.csv").open("w", encoding="utf-8", newline="") as file:
            out = csv.writer(file)
            out.writerow(["id", "image", title, "price"])
            out.writerows(row.values() for row in rows or self.rows.values())

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start ``reco memory`` in the shop's folder."""
        return subprocess.Popen(
            [sys.executable, "-m", "reco_plugin", "memory", *words],
            cwd=self.place,
            env={**os.environ, "PYTHONPATH": str(self.package), "RECO_MODEL": str(ROOT / "triton_models")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str, fails: bool = False) -> Any:
        """Run ``reco memory``; its JSON. It must fail with an error of one line if ``fails``, and succeed otherwise."""
        process = self.start(*words, "--json")
        out, err = process.communicate()
        if fails:
            assert process.returncode == 1 and "Traceback" not in err, (words, process.returncode, err)
            return None
        assert process.returncode == 0, (words, process.returncode, err)
        return json.loads(out)

    def sync(self, *, fails: bool = False) -> None:
        """Sync; then there are as many pairs as rows."""
        answer = self.run("sync", "catalogue.csv?text=title", "--as", "shop", "--create", fails=fails)
        assert fails or answer["pairs"] == len(self.rows), (answer, len(self.rows))

    def content(self, memory: str = "memory") -> dict[str, tuple[bytes, bytes, dict[str, Any]]]:
        """Id -> vectors and the columns of the table."""
        self.run("copy", memory, "look.npz", "--yes")
        found = dict[str, tuple[bytes, bytes, dict[str, Any]]]()
        for records in read_records(self.place / "look.npz"):
            for place, name in enumerate(records.ids):
                payload = {key: value for key, value in records.payloads[place].items() if not key.startswith("_")}
                sides = (np.round(side[place], 3).tobytes() for side in (records.image, records.text))
                found[name] = (*sides, payload)
        return found


def accident(shop: Shop, kind: str) -> None:
    """Let something go wrong; no pair may be lost, unless its row is gone."""
    before = shop.content() if kind in ("column", "half", "disk") else {}
    match kind:
        case "column":
            shop.write(title="titel")
            shop.sync(fails=True)
        case "half":
            shop.write(list(shop.rows.values())[: len(shop.rows) // 2])
            shop.sync(fails=True)
        case "kill":
            running = shop.start("sync", "catalogue.csv?text=title", "--as", "shop")
            time.sleep(shop.rng.uniform(0.3, 2.5))
            running.kill()
            running.communicate()
        case "disk":
            filler, usage = shop.place / "filler", os.statvfs(shop.place)
            with filler.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, usage.f_bavail * usage.f_frsize - 20_000)
            shop.sync(fails=True)
            filler.unlink()
        case "backup":
            shop.run("copy", "memory", "backup.npz", "--yes")
            for folder in shop.place.glob("memory*"):
                shutil.rmtree(folder) if folder.is_dir() and not folder.is_symlink() else folder.unlink()
            shop.run("copy", "backup.npz", "memory")
        case "previous":
            shop.run("build", "catalogue.csv?text=title", "--as", "shop", "--swap")
            shop.run("versions", "--previous")
    assert not before.keys() - shop.content().keys(), f"{kind}: pairs are lost"


def main() -> None:
    """Live through the year, and say what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--before", metavar="COMMIT", help="whose package runs the first half of the year")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng, happened, began = random.Random(given.seed), Counter[str](), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        place, old = Path(folder, "shop"), Path(folder, "old")
        place.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "reco-year", str(place)]
        has_disk = os.geteuid() == 0 and subprocess.run(mount, check=False, capture_output=True).returncode == 0
        if given.before:
            subprocess.run(["git", "worktree", "add", "--detach", old, given.before], cwd=ROOT, check=True)
        try:
            shop = Shop(place, old if given.before else ROOT, rng)
            kinds = [kind for kind in ACCIDENTS if has_disk or kind != "disk"]
            for day in range(1, given.days + 1):
                if day == given.days // 2:
                    shop.package = ROOT
                    happened["upgrade of the package"] += bool(given.before)
                shop.change()
                shop.write()
                if day > 1 and day % 9 == 0:
                    kind = kinds[day // 9 % len(kinds)]
                    accident(shop, kind)
                    happened[kind] += 1
                    shop.write()
                shop.sync()
                happened["sync"] += 1
                if day % 60 == 0:
                    shop.run("build", "catalogue.csv?text=title", "--as", "shop", "--swap")
                    shop.run("versions", "--prune")
                    happened["new version"] += 1
                if day % 30 == 0:
                    print(f"day {day}: {len(shop.rows)} products, {dict(happened)}", flush=True)
            shop.run("versions", "--prune")
            shop.run("build", "catalogue.csv?text=title", "--as", "shop", "--memory", "fresh")
            assert shop.content() == shop.content("fresh"), "the memory differs from one that is built from nothing"
            versions = [str(one.relative_to(place)) for one in sorted(place.rglob("shard"))]
            print(
                f"{dict(happened)}; equal to a new memory; versions on the disk: {versions}; "
                f"{time.monotonic() - began:.0f} s"
            )
        finally:
            if given.before:
                subprocess.run(["git", "worktree", "remove", "--force", old], cwd=ROOT, check=False)
            if has_disk:
                subprocess.run(["umount", "--lazy", place], check=False)


if __name__ == "__main__":
    main()
