"""The tools that read the deployment's files: docker compose and hadolint, from wheels."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def root() -> Path:
    """Of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def run() -> Run:
    """Run a tool of this environment."""

    def call(tool: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [Path(sys.executable).parent / tool, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)

    return call


@pytest.fixture(scope="session")
def compose(run: Run) -> Callable[..., dict[str, Any]]:
    """docker-compose.yml as Compose understands it, with these profiles, all when none is named."""

    def read(*profiles: str) -> dict[str, Any]:
        chosen = [word for profile in profiles or ("*",) for word in ("--profile", profile)]
        done = run("docker-compose", "--file", ROOT / "docker-compose.yml", *chosen, "config", "--format", "json")
        assert done.returncode == 0, done.stderr
        return yaml.safe_load(done.stdout)

    return read
