"""Plant faults in a copy of HEAD, one after the other, and see which test notices each.

    .venv-dev/bin/python tests/faults.py [WORD ...]        only the faults whose name holds one of these words

A fault that no test notices, or whose old text is not found exactly once, ends the run with 1.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# name: (old text, new text, tests that may notice); the text stands exactly once in the package
FAULTS: dict[str, tuple[str, str, str]] = {
    "a refinement moves away from what was found": (
        "moved = queries + added",
        "moved = queries - added",
        "tests/method tests/calibration",
    ),
    "the search reads the modality it searches by": (
        "            other(self.modality),\n",
        "            self.modality,\n",
        "tests/test_refine.py",
    ),
    "one neighbour less than k": (
        "nearest(score, permitted, wanted.k)",
        "nearest(score, permitted, wanted.k - 1)",
        "tests/memory",
    ),
    "a folder is not flushed": (
        "                _flush(shard)\n            self._unflushed = 0",
        "                pass\n            self._unflushed = 0",
        "tests/memory",
    ),
    "an excluded pair is found": ("if name in self._rows]] = False", "if name in self._rows]] = True", "tests/memory"),
    "bounds of a filter are turned round": (
        "_COMPARE[name](float(value), bound)",
        "_COMPARE[name](bound, float(value))",
        "tests/memory",
    ),
    "a memory of another encoder is taken": (
        "    return one.digest == other.digest or",
        "    return True or",
        "tests/memory tests/test_pairs.py",
    ),
    "a model file's checksum is not compared": (
        "!= file.sha256:",
        "== '':",
        "tests/test_artifact.py tests/models tests/runtime",
    ),
    "routes are open without a key": ('startswith(_OPEN) else "embed"', "startswith(_OPEN) else None", "tests/serve"),
    "the circuit never opens": (
        "if self._probing or self._failures >= self._limit:",
        "if self._probing:",
        "tests/degrade",
    ),
    "a hanging memory is waited for": (
        "thread.join(max(0.0, limit.left_s))",
        "thread.join(5 + limit.left_s)",
        "tests/degrade",
    ),
    "the parts of a large batch come back in another order": (
        "np.concatenate(column) if",
        "np.concatenate(column[::-1]) if",
        "tests/test_batching.py",
    ),
    "rows and columns of a crop are mixed up": (
        "image.crop((left, top, left + size[1], top + size[0]))",
        "image.crop((top, left, top + size[1], left + size[0]))",
        "tests/preprocess tests/runtime",
    ),
    "a truncated text does not end": (
        "ids[truncated, -1] = self._end",
        "ids[truncated, 0] = self._end",
        "tests/preprocess tests/runtime",
    ),
    "clicks are credited to the other list": (
        'Votes(teams.count("plain"), teams.count("refined"))',
        'Votes(teams.count("refined"), teams.count("plain"))',
        "tests/test_interleave.py tests/measure reco_plugin/interleave.py",
    ),
    "vectors of an API are taken in the order of its answer": (
        'sorted(rows, key=lambda row: int(row["index"]))',
        "list(rows)",
        "tests/encoder_api",
    ),
    "the queue takes more than its limit": (
        "if waiting + inputs > self._queue and",
        "if waiting + inputs > 99 * self._queue and",
        "tests/serve",
    ),
    "base64 has the other byte order": ('newbyteorder("<")', 'newbyteorder(">")', "tests/serve/dialects"),
    "opinions that an answer is right are taken as wrong": (
        "heard.queries[~heard.right].T",
        "heard.queries[heard.right].T",
        "tests/method tests/calibration/test_feedback.py tests/memory",
    ),
    "nDCG discounts the first place": (
        "np.arange(2, first.shape[1] + 2)",
        "np.arange(3, first.shape[1] + 3)",
        "tests/measure tests/evaluate",
    ),
    "rows that are held already are written again": (
        "if row.digest == first.get(",
        "if row.digest != first.get(",
        "tests/ingest tests/sources",
    ),
    "a roll-back takes the newest version": (
        "version.finished and version.number < live",
        "version.finished and version.number > live",
        "tests/memory",
    ),
    "the move is divided by the wrong length": (
        "(1.0 + strength * strength + 2.0",
        "(1.0 + strength + 2.0",
        "tests/method tests/calibration",
    ),
}


def plant(tree: Path, old: str, new: str) -> str:
    """Write a fault into the only file that has its text; returns why it cannot, or nothing."""
    found = [path for path in sorted((tree / "reco_plugin").rglob("*.py")) if old in path.read_text("utf-8")]
    if len(found) != 1 or found[0].read_text("utf-8").count(old) != 1:
        return f"its text is in {len(found)} files"
    found[0].write_text(found[0].read_text("utf-8").replace(old, new), "utf-8")
    return ""


def noticed(tree: Path, tests: str) -> str:
    """The first test that fails; nothing if all pass."""
    there = [one for one in tests.split() if (tree / one).exists()]
    env = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *there]
    done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, check=False)
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    if failed or done.returncode == 0:
        return failed[0] if failed else ""
    raise SystemExit(f"pytest ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def main() -> int:
    """Plant each fault, and print who noticed."""
    words, missed = sys.argv[1:], 0
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        tree = Path(folder, "tree")
        git = ["git", "-C", str(ROOT)]
        subprocess.run([*git, "worktree", "add", "-q", "--detach", str(tree), "HEAD"], check=True)
        try:
            for name, (old, new, tests) in FAULTS.items():
                if words and not any(word in name for word in words):
                    continue
                subprocess.run(["git", "-C", str(tree), "checkout", "-q", "."], check=True)
                why = plant(tree, old, new)
                by = "" if why else noticed(tree, tests)
                missed += not by
                print(f"{name}: {f'noticed by {by}' if by else why or 'NOT NOTICED'}", flush=True)
        finally:
            subprocess.run([*git, "worktree", "remove", "--force", str(tree)], check=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
