"""deploy/Dockerfile: hadolint's opinion, what goes in, and what stays out."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

FILE = Path("deploy", "Dockerfile")


@pytest.fixture(scope="module")
def lines(root: Path) -> list[list[str]]:
    """Instructions as words, continued lines joined, comments gone."""
    text = re.sub(r"^#.*\n", "", (root / FILE).read_text("utf-8"), flags=re.MULTILINE)
    joined = re.sub(r"\\\n\s*", " ", text)
    return [line.split() for line in joined.splitlines() if line.strip()]


def test_hadolint_has_nothing_to_say(run: Any, root: Path) -> None:
    done = run("hadolint", "--no-color", root / FILE)
    assert done.returncode == 0, done.stdout


def test_the_last_stage_serves_as_nobody_special(lines: list[list[str]]) -> None:
    last = lines[max(i for i, words in enumerate(lines) if words[0] == "FROM") :]
    assert last[0][-1] == "serve"
    users = [words[1] for words in last if words[0] == "USER"]
    assert users == ["10001:10001"]
    kinds = [words[0] for words in last]
    assert kinds.index("USER") < kinds.index("ENTRYPOINT")
    assert "HEALTHCHECK" in kinds
    assert all(":" in words[1] or words[1].startswith("${") for words in lines if words[0] == "FROM")


def test_pythons_own_library_is_compiled(lines: list[list[str]]) -> None:
    """Its image has none of that, and nothing can write it later: each probe compiled for 0.25 s of a core."""
    last = lines[max(i for i, words in enumerate(lines) if words[0] == "FROM") :]
    [made] = [words for words in last if "compileall" in words]
    assert last.index(made) < next(i for i, words in enumerate(last) if words[0] == "USER"), "as root"
    place = " ".join(made).partition('"$(')[2].removesuffix(')"')
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # the first `python` may be another
    asked = subprocess.run(["sh", "-c", place], capture_output=True, text=True, check=True, env={"PATH": path})
    found = asked.stdout.strip()
    assert Path(found) == Path(sysconfig.get_path("stdlib"))
    skipped = re.compile(made[made.index("-x") + 1].strip("'"))
    assert skipped.search(f"{found}/test/support/__init__.py") and skipped.search(
        f"{found}/site-packages/pip/__main__.py"
    )
    assert not skipped.search(f"{found}/urllib/request.py") and not skipped.search(f"{found}/encodings/utf_8.py")


def test_the_builder_is_sent_what_is_copied_and_nothing_else(root: Path, lines: list[list[str]]) -> None:
    model = next(words[1].removeprefix("MODEL=") for words in lines if words[:2] == ["ARG", "MODEL=triton_models"])
    own = [words[1:-1] for words in lines if words[0] == "COPY" and not words[1].startswith("--from")]
    copied = {name.replace("${MODEL}", model).removeprefix("./") for names in own for name in names}
    rules = [line for line in (root / ".dockerignore").read_text("utf-8").splitlines() if not line.startswith("#")]
    assert rules[0] == "*", "what is not named is not sent"
    assert {rule.removeprefix("!") for rule in rules if rule.startswith("!")} == copied
    assert all((root / name).exists() for name in copied)


def test_no_secret_is_an_argument(lines: list[list[str]]) -> None:
    named = [words[1] for words in lines if words[0] in {"ARG", "ENV"}]
    assert not [name for name in named if re.search("key|token|secret|password", name, re.IGNORECASE)]


def _variants(root: Path) -> set[str]:
    """Every VARIANT of the Dockerfile: its default and those in the comments that say how to build."""
    return set(re.findall(r"VARIANT=(\w+)", (root / FILE).read_text("utf-8")))


def _locked(root: Path, name: str) -> set[str]:
    return set(re.findall(r"^([\w-]+)==", (root / "locks" / f"{name}.txt").read_text("utf-8"), re.MULTILINE))


def test_each_variant_has_a_lock_and_needs_no_torch(root: Path) -> None:
    variants = _variants(root)
    assert {f"image-{variant}.txt" for variant in variants} == {
        path.name for path in (root / "locks").glob("image-*.txt")
    }
    for variant in variants:
        names = _locked(root, f"image-{variant}")
        assert {"numpy", "grpcio", "qdrant-client", "fastapi", "hatchling"} <= names
        assert not names & {"torch", "torchvision", "open-clip-torch", "matplotlib", "jinja2"}
    assert "torch" in _locked(root, "torch"), "the check sees torch"


def test_the_image_of_the_jobs_reads_what_its_page_says(root: Path) -> None:
    """Parquet, PostgreSQL, OpenSearch; by a Triton server or in process."""
    assert {"pyarrow", "psycopg", "httpx", "tritonclient", "onnxruntime"} <= _locked(root, "image-jobs")


def test_the_probe_in_the_image_is_python(lines: list[list[str]]) -> None:
    [check] = [words for words in lines if words[0] == "HEALTHCHECK"]
    command = shlex.split(" ".join(check[check.index("CMD") + 1 :]).strip("[]").replace('", "', '" "'))
    assert command[:2] == ["python", "-c"]
    compile(command[2], "HEALTHCHECK", "exec")
    assert "/readyz" in command[2]
