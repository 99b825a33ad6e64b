"""deploy/Dockerfile as hadolint reads it, and what its variants install; tests/stack builds two of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

FILE = Path("deploy", "Dockerfile")
BRINGS = {  # beside what each serves with
    "triton": {"tritonclient", "qdrant-client"},
    "cpu": {"onnxruntime", "qdrant-client"},
    "gpu": {"onnxruntime-gpu", "qdrant-client"},
    "jobs": {"pyarrow", "psycopg", "tritonclient", "onnxruntime", "qdrant-client"},  # Parquet, PostgreSQL
}


def test_hadolint_has_nothing_to_say(run: Any, root: Path) -> None:
    done = run("hadolint", "--no-color", root / FILE)
    assert done.returncode == 0, done.stdout


def test_no_secret_is_an_argument(root: Path) -> None:
    named = re.findall(r"^(?:ARG|ENV) (.*)$", (root / FILE).read_text("utf-8"), flags=re.MULTILINE)
    assert named and not [line for line in named if re.search("key|token|secret|password", line, re.IGNORECASE)]


def test_each_variant_has_what_it_needs_and_no_torch(root: Path) -> None:
    for variant, brings in BRINGS.items():
        assert f"VARIANT={variant}" in (root / FILE).read_text("utf-8")
        lock = (root / "locks" / f"image-{variant}.txt").read_text("utf-8")
        names = set(re.findall(r"^([\w-]+)==", lock, re.MULTILINE))
        assert {"numpy", "grpcio", "fastapi", "hatchling"} | brings <= names, variant
        assert not names & {"torch", "torchvision", "open-clip-torch", "matplotlib", "jinja2"}, variant
