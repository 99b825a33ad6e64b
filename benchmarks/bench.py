"""A short round of the benchmarks of speed, side by side: makes docs/measurements/speed.md. `make bench`.

    python -m benchmarks.bench                              all of them, 25 minutes on two cores
    python -m benchmarks.bench --only preparing startup     some; the others' blocks stay as they are
    python -m benchmarks.bench --only million               a million pairs: half an hour and 6 GB
    python -m benchmarks.bench --out /tmp/speed.md          into another page, made from ours

Each is a command of its own that prints its tables. A block is written as soon as it is measured, so that an
interrupted round keeps what it has; `--missing` measures only what the page does not have yet.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from reco_plugin.files import whole_file

from .machine import machine

PAGE, CACHE = Path("docs", "measurements", "speed.md"), Path(".cache", "bench")
ONE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
BENCHES: dict[str, tuple[str, dict[str, str]]] = {  # name of the block: command, variables
    "engines": (f"benchmarks.engines --exports {CACHE}/exports --rounds 3", {}),
    "preparing": ("benchmarks.preparing", ONE),
    "refining": (f"benchmarks.refining --folder {CACHE}/refining --again", {}),
    "slopes": (f"benchmarks.slopes --folder {CACHE}/slopes --docs docs/measurements", {}),
    "profile": (f"benchmarks.profiled --folder {CACHE}/refining", ONE),
    "batching": ("benchmarks.batching --rounds 5", {}),
    "guard": ("benchmarks.degrade_overhead", ONE),
    "startup": ("benchmarks.startup", {}),
}
LONG: dict[str, tuple[str, dict[str, str]]] = {  # the same, only where they are named
    "million": (f"benchmarks.refining --folder {CACHE}/million --pairs 1000000 --rounds 3 --again", {}),
}
TOOLS = ("numpy", "onnxruntime", "openvino", "faiss-cpu", "qdrant-edge-py", "torch", "open_clip_torch")


def run(name: str) -> str:
    """The block of one benchmark: its tables, and how they were made.

    Raises:
        SystemExit: it failed; its messages are on stderr.
    """
    command, variables = (BENCHES | LONG)[name]
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", *shlex.split(command)],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"python -m {command} failed ({done.returncode}); what was measured before it is in the page")
    given = " ".join(f"{key}={value}" for key, value in variables.items())
    made = f"`{given} python -m {command}`".replace("` ", "`")
    load = os.getloadavg()[0]
    return f"{done.stdout.strip()}\n\n{made}, {time.monotonic() - begun:.0f} s; load {load:.1f} at its end."


def written(page: str, name: str, block: str) -> str:
    r"""The page with a block in the place of that name.

    >>> written("a\n<!-- measured: x -->\nold\n<!-- end -->\nb", "x", "new")
    'a\n<!-- measured: x -->\n\nnew\n\n<!-- end -->\nb'
    """
    place = re.compile(rf"(<!-- measured: {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not place.search(page):
        raise SystemExit(f"the page has no place for {name}: <!-- measured: {name} --> and <!-- end -->")
    return place.sub(lambda found: f"{found[1]}\n{block}\n\n{found[2]}", page)


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[*BENCHES, *LONG], default=list(BENCHES))
    parser.add_argument("--missing", action="store_true", help="measure only what the page does not have")
    parser.add_argument("--out", type=Path, default=PAGE)
    told = parser.parse_args(arguments)
    if not told.out.exists():
        empty = re.sub(r"(<!-- measured: \S+ -->\n).*?(<!-- end -->)", r"\1\2", PAGE.read_text(), flags=re.DOTALL)
        told.out.write_text(empty)
    where = f"{machine(*TOOLS, load=False)}; {datetime.now(UTC).date()}."
    for name in told.only:
        if told.missing and re.search(rf"<!-- measured: {name} -->\n\n", told.out.read_text()):
            continue
        print(f"{name}: python -m {(BENCHES | LONG)[name][0]}", file=sys.stderr, flush=True)
        block = run(name)  # minutes: the page is read after it, since somebody may edit it meanwhile
        page = written(written(told.out.read_text(), name, block), "machine", where)
        with whole_file(told.out) as part:
            part.write_text(page)


if __name__ == "__main__":
    main()
