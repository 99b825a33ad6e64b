"""Make what is missing, start the services, ask them in turns, and write tables and figures."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from reco_plugin.files import whole_file
from reco_plugin.types import Modality

from ..page import machine, write_blocks
from . import __doc__ as about
from . import environment
from .callers import Job, Seen
from .checkpoint import Made, make
from .report import Case, Cell, check, told
from .servers import NAMES, NotHere, Running, started

PAGE, FIGURES = "peers.md", "peers.json"
_QUOTED = " ".join(f"'{name}'" if " " in name else name for name in NAMES)
KINDS: dict[str, tuple[Modality, int, tuple[int, ...]]] = {  # modality, items of a request, callers
    "text": ("text", 1, (1, 16, 64, 256)),
    "texts": ("text", 32, (1, 16, 64)),
    "image": ("image", 1, (1, 16, 64, 256)),
    "images": ("image", 32, (1, 4)),
}


def parsed(words: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kinds", nargs="*", default=list(KINDS), help=f"some of: {', '.join(KINDS)}")
    parser.add_argument("--quick", action="store_true", help="1 and 16 callers of one item, 1 of 32; one round")
    parser.add_argument("--rounds", type=int, default=3, help="how often all take turns")
    parser.add_argument("--seconds", type=float, default=3, help="of a turn; what was asked by then is waited for")
    parser.add_argument("--callers", type=int, nargs="+", help="other numbers of callers")
    parser.add_argument(
        "--services", nargs="+", default=list(NAMES), choices=NAMES, metavar="NAME", help=f"some of: {_QUOTED}"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of each service's arithmetic")
    parser.add_argument("--folder", type=Path, default=Path(".cache", "peers"), help="keeps models and environment")
    parser.add_argument("--docs", type=Path, help=f"folder of {PAGE}: write into its blocks, and {FIGURES} beside it")
    told = parser.parse_args(words)
    if unknown := [name for name in told.kinds if name not in KINDS]:
        parser.error(f"no kind is called {', '.join(unknown)}: choose from {', '.join(KINDS)}")
    if told.docs and not (told.docs / PAGE).is_file():
        parser.error(f"{told.docs} has no {PAGE}, into whose blocks the tables go")
    if told.quick:
        told.rounds = 1
    return told


def plan(given: argparse.Namespace) -> list[tuple[str, Case]]:
    """The cases of all tables, those first that take the least: a round that is interrupted keeps what it has."""
    found = [(kind, case) for kind in given.kinds for case in cases(given, kind)]
    return sorted(found, key=lambda each: each[1].items * each[1].callers * (8 if each[1].modality == "image" else 1))


def cases(given: argparse.Namespace, kind: str) -> list[Case]:
    """What is asked for a table, in its order."""
    modality, items, callers = KINDS[kind]
    few = tuple(one for one in callers if one <= (16 if items == 1 else 1))
    return [Case(modality, items, one) for one in given.callers or (few if given.quick else callers)]


def measure(running: Sequence[Running], case: Case, rounds: int, ask: Callable[[Running, Case], Seen]) -> list[Cell]:
    """Ask all services in turn, every second round backwards; a cell for each of them."""
    seen: dict[str, list[tuple[Seen, float]]] = {one.name: [] for one in running}
    ram = {one.name: 0 for one in running}
    for turn in range(rounds):
        for one in running[:: 1 if turn % 2 == 0 else -1]:
            before = one.cpu
            found = ask(one, case)
            seen[one.name].append((found, one.cpu - before))
            ram[one.name] = max(ram[one.name], one.ram)
    return [Cell.of(one.name, case, seen[one.name], ram[one.name]) for one in running]


def asking(made: Made, seconds: float) -> Callable[[Running, Case], Seen]:
    """How a service is asked: by callers in a process of their own."""

    def ask(one: Running, case: Case) -> Seen:
        job = Job(str(made.folder), one.port, one.dialect, case.modality, case.items, case.callers, seconds)
        done = subprocess.run(
            [sys.executable, "-m", f"{__package__}.callers"],
            input=json.dumps(asdict(job)),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        return Seen(**json.loads(done.stdout))

    return ask


def main(words: Sequence[str] | None = None) -> int:
    """See the package; 1 where an answer was wrong or missing."""
    given = parsed(sys.argv[1:] if words is None else words)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the services end, too
    folder: Path = given.folder.resolve()
    made, python = make(folder), environment.make(folder / "peers-env")
    command = " ".join(["python -m benchmarks.peers", *(sys.argv[1:] if words is None else words)])
    others = environment.versions(python, ["infinity-emb", "sentence-transformers", "transformers", "torch", "fastapi"])
    where = f"{machine('onnxruntime', load=False)}; the others: {', '.join(f'{a} {b}' for a, b in others.items())}"
    left_out, wrong = list[str](), list[str]()
    with ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        running = []
        for name in given.services:
            print(f"starting {name}", file=sys.stderr, flush=True)
            try:
                running.append(stack.enter_context(started(name, made, python, given.threads, logs)))
            except NotHere as error:
                left_out.append(f"{name} is left out: {error}.")
        ask = asking(made, given.seconds)
        for one in running:  # the first calls of each compile and allocate
            for case in (Case("text", 32, 1), Case("image", 8, 1)):
                ask(one, case)
        cells: dict[str, list[Cell]] = {kind: [] for kind in given.kinds}
        for kind, case in plan(given):
            cells[kind] += measure(running, case, given.rounds, ask)
            end = f"load {os.getloadavg()[0]:.1f} at its end"
            block = "\n\n".join(
                [told(cells[kind]), *left_out, f"`{command}`; {end}; {where}; {datetime.now(UTC).date()}."]
            )
            new = cells[kind][-len(running) :]
            print("\n".join([*(cell.line() for cell in new), *check(new)]), file=sys.stderr, flush=True)
            wrong += check(new)
            if given.docs:
                write_blocks(given.docs / PAGE, {kind: block})
                _keep(given.docs / FIGURES, new)
    for kind, some in cells.items():
        print(f"## {kind}\n\n{told(some)}\n", flush=True)
    return int(bool(wrong))


def _keep(path: Path, cells: Sequence[Cell]) -> None:
    """Put figures beside the page; those of other cases stay."""
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    new = [cell.figures() for cell in cells]
    names = ("service", "modality", "items", "callers")
    places = {tuple(one[name] for name in names) for one in new}
    kept = [one for one in kept if tuple(one[name] for name in names) not in places]
    with whole_file(path) as part:
        part.write_text(json.dumps([*kept, *new], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
