"""Plant faults in a copy of HEAD, one after the other, and see which test notices each.

    .venv-dev/bin/python tests/faults.py [WORD ...]        only the faults whose name holds one of these words

It prints the first test that fails with the fault and passes without it. A fault that no test notices, or whose old
text is not found exactly once, ends the run with 1.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

MARKS = "not (browser or torch or fetched or ray or jvm or docker)"  # as `make test`

# what is wrong, old text, new text, tests that may notice; the old text stands exactly once in the package
FAULTS = (
    (
        "wrong sign",
        "moved_to = queries + added",
        "moved_to = queries - added",
        "tests/learning tests/fusion/test_refiner.py",
    ),
    (
        "swapped modality",
        "            other(self.modality),",
        "            self.modality,",
        "tests/fusion/test_refiner.py",
    ),
    (
        "off by one in k",
        "permitted[row], wanted.k)",
        "permitted[row], wanted.k - 1)",
        "tests/memory/contract",
    ),
    (
        "lost flush",
        '"flush"):\n                shard.flush()',
        '"flush"):\n                pass',
        "tests/memory/test_folder.py",
    ),
    (
        "excluded pair found",
        "if name in self._rows]] = False",
        "if name in self._rows]] = True",
        "tests/memory/contract",
    ),
    ("bounds turned round", "[name](float(value), bound)", "[name](bound, float(value))", "tests/memory/contract"),
    (
        "other encoder taken",
        "return one.digest == other.digest or",
        "return True or",
        "tests/test_pairs.py tests/memory/contract",
    ),
    ("checksum ignored", "!= file.sha256:", "== '':", "tests/encoders/test_model_folder.py"),
    ("missing key check", 'startswith(_OPEN) else "embed"', "startswith(_OPEN) else None", "tests/serve/test_keys.py"),
    (
        "circuit never opens",
        "self._probing or self._failures >= self._limit:",
        "self._probing:",
        "tests/retrieval/test_breaker.py",
    ),
    ("deadline ignored", "thread.join(left)", "thread.join(left + 5)", "tests/retrieval/test_deadline.py"),
    ("rows mixed up", "np.concatenate(column) if", "np.concatenate(column[::-1]) if", "tests/test_batching.py"),
    (
        "crop transposed",
        "crop((left, top, left +",
        "crop((top, left, left +",
        "tests/encoders/preprocess/test_image.py",
    ),
    ("text without an end", "ids[truncated, -1] =", "ids[truncated, 0] =", "tests/encoders/preprocess/test_text.py"),
    ("queries without their words", "texts = None if items.texts is None", "texts = None if True", "tests/evaluation"),
    ("answers out of order", 'sorted(rows, key=lambda row: int(row["index"]))', "list(rows)", "tests/encoders/api"),
    (
        "queue without a limit",
        "inputs > self._queue and",
        "inputs > 99 * self._queue and",
        "tests/serve/test_limits.py",
    ),
    ("wrong byte order", 'vector.astype("<f4")', 'vector.astype(">f4")', "tests/serve/dialects"),
    ("opinions turned round", "array([one.right", "array([not one.right", "tests/signals"),
    ("discount off by one", "np.arange(2, k + 2)", "np.arange(3, k + 3)", "tests/evaluation"),
    ("held rows written", "get(ROW) == row.digest", "get(ROW) == row.id", "tests/ingest/test_run.py"),
    (
        "roll-back forwards",
        "finished and version.number < live",
        "finished and version.number > live",
        "tests/ingest/test_folder_versions.py",
    ),
)


def plant(tree: Path, old: str, new: str) -> str:
    """Write a fault into the only file that has its text; returns why it cannot, or nothing."""
    found = [path for path in sorted((tree / "reco_plugin").rglob("*.py")) if old in path.read_text("utf-8")]
    if len(found) != 1 or found[0].read_text("utf-8").count(old) != 1:
        return f"ITS TEXT IS IN {len(found)} FILES"
    found[0].write_text(found[0].read_text("utf-8").replace(old, new), "utf-8")
    return ""


def failing(tree: Path, *tests: str) -> str:
    """The first test that fails; nothing if all pass."""
    there = [one for one in tests if (tree / one.partition("::")[0]).exists()]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", MARKS, *there]
    env = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, check=False)
    failed = re.findall(r"^FAILED (.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
    if not failed and done.returncode:
        raise SystemExit(f"pytest ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return failed[0] if failed else ""


def main() -> int:
    """Plant each fault, and print who noticed."""
    missed = 0
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        tree = Path(folder, "tree")
        subprocess.run(["git", "-C", str(ROOT), "worktree", "add", "-q", "--detach", str(tree), "HEAD"], check=True)
        restore = ["git", "-C", str(tree), "checkout", "-q", "."]
        try:
            for name, old, new, tests in FAULTS:
                if sys.argv[1:] and not any(word in name for word in sys.argv[1:]):
                    continue
                if not (said := plant(tree, old, new)):
                    by = failing(tree, *tests.split())
                    subprocess.run(restore, check=True)
                    said = "NOT NOTICED" if not by else f"{by} FAILS WITHOUT IT, TOO" if failing(tree, by) else by
                missed += said.isupper() or said.endswith("TOO")
                print(f"{name}: {said}", flush=True)
        finally:
            subprocess.run(["git", "-C", str(ROOT), "worktree", "remove", "--force", str(tree)], check=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
