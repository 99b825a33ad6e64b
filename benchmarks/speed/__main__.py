"""Measure each block in a process of its own; print it, or write it into the page."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from ..page import machine, write_blocks
from . import __doc__ as about
from .inputs import Given

BLOCKS = {  # name -> module; the function has the block's name
    "encoding": "encoding",
    "refining": "refining",
    "startup": "starting",
    "serve": "serving",
    "peers": "peers",
    "tenants": "tenants",
}
ALONE = ("serve", "peers")  # run only when named: they need another commit, or install other packages
TOOLS = ("numpy", "onnxruntime", "faiss-cpu", "qdrant-edge-py", "torch", "open_clip_torch")
_HERE = "--here"


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "blocks", nargs="*", help=f"some of: {', '.join(BLOCKS)}; all but {' and '.join(ALONE)} when left out"
    )
    parser.add_argument("--pairs", type=int, nargs="+", default=[10_000, 100_000], help="sizes of the memories")
    parser.add_argument("--rounds", type=int, default=5, help="how often all take turns")
    parser.add_argument("--folder", type=Path, default=Path(".cache", "speed"), help="keeps models and memories")
    parser.add_argument("--model", type=Path, default=Path("triton_models"), help="model folder, for startup")
    parser.add_argument("--old", type=Path, help="for serve: `git worktree` of another commit")
    parser.add_argument("--write", action="store_true", help="write the blocks into docs/measurements.md")
    parser.add_argument(_HERE, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.blocks if name not in BLOCKS]:
        parser.error(f"no block is called {', '.join(unknown)}: choose from {', '.join(BLOCKS)}")
    if "serve" in options.blocks and options.old is None:
        parser.error("serve needs --old DIRECTORY, a work tree of the other commit: git worktree add DIRECTORY COMMIT")
    options.blocks = options.blocks or [name for name in BLOCKS if name not in ALONE]
    return options


def measured(name: str, options: argparse.Namespace) -> str:
    """Measure one block in this process."""
    options.folder.mkdir(parents=True, exist_ok=True)
    given = Given(options.folder.resolve(), options.model.resolve(), tuple(options.pairs), options.rounds, options.old)
    block: Callable[[Given], str] = getattr(import_module(f".{BLOCKS[name]}", __package__), name)
    return block(given)


def main(arguments: Sequence[str] | None = None) -> None:
    """See the package."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = parsed(words)
    if options.here:
        print(*(measured(name, options) for name in options.blocks), sep="\n\n")
        return
    flags = [word for word in words if word not in options.blocks]
    for name in options.blocks:
        command = ["-m", "benchmarks.speed", name, *flags]
        print(f"python {' '.join(command)}", file=sys.stderr, flush=True)
        begun = time.monotonic()
        done = subprocess.run([sys.executable, *command, _HERE], stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{name} failed ({done.returncode}): its messages are above; earlier blocks are kept")
        took, load = time.monotonic() - begun, os.getloadavg()[0]
        block = f"{done.stdout.strip()}\n\n`python {' '.join(command)}`, {took:.0f} s; load {load:.1f} at its end."
        if options.write:
            where = f"{machine(*TOOLS)}; {datetime.now(UTC).date()}."
            write_blocks({name: block, "machine": where})
        else:
            print(f"## {name}\n\n{block}\n", flush=True)


if __name__ == "__main__":
    main()
