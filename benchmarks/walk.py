"""The pages' own commands on a cluster: ``python -m benchmarks.cluster python -m benchmarks.walk``.

From an empty cluster, the commands of :data:`STEPS` are run as they stand in docs/, in their order. What needs a
program in a container, an image or a registry is left out, and counted. ``--write`` puts what came of each into
docs/measurements/deployment.md. It makes the namespaces reco, shop and monitoring, and deletes reco: not for a cluster
in use.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from .chart import ROOT
from .page import table, write_blocks

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NEEDS_MORE = re.compile(r"(?!helm |kubectl |for )|.*port-forward|helm (test|push)|.*oci://|kubectl -n \S+ (logs|cp) ")
"""A command that needs a program in a container, an image or a registry."""
CLAIM = """kubectl -n reco apply -f - <<< '{"apiVersion": "v1", "kind": "PersistentVolumeClaim",
"metadata": {"name": "catalogue"}, "spec": {"accessModes": ["ReadWriteOnce"],
"resources": {"requests": {"storage": "1Gi"}}}}'""".replace("\n", " ")
GONE = ("helm uninstall reco --namespace reco", "kubectl delete namespace reco")
FRESH = ("kubectl create namespace reco", "helm install reco deploy/helm --namespace reco --values mine.yaml")
UPGRADE = "helm upgrade reco deploy/helm --namespace reco --values mine.yaml"
ROLLOUT = "kubectl -n reco rollout status statefulset/reco-qdrant deployment/reco"
REFUSED = "# refused"
"""Stands behind a command that is refused on purpose."""


class Step(NamedTuple):
    """A section of a page, and what the reader does before and after it, as the page says in words."""

    page: str
    heading: str
    values: dict[str, Any] | None = None
    """Of mine.yaml from here on, none as before; those that the section shows are added."""
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


STEPS = (
    Step("deployment.md", "# Deployment: from a laptop to a cluster", after=(ROLLOUT, *GONE)),
    Step("deployment.md", "### A trial on one node", after=GONE),
    Step("deployment.md", "### Production", before=("kubectl create namespace shop",), after=(CLAIM,)),
    Step(
        "kubernetes.md",
        "## Jobs",
        after=("kubectl -n reco create job --from=cronjob/reco-sync reco-sync-now", "kubectl -n reco get job,cronjob"),
    ),
    Step(
        "kubernetes.md",
        "### Snapshots in a bucket",
        {},
        before=(*GONE, *FRESH),
        after=("kubectl -n reco get cronjob", *GONE),
    ),
    Step(
        "operations.md",
        "## Back up and restore the memory",
        {"jobs": {"snapshots": {"enabled": True}}},
        before=FRESH,
    ),
    Step(
        "operations.md",
        "## Larger volumes",
        {"qdrant": {"persistence": {"size": "100Gi"}}},
        before=(f"{UPGRADE} {REFUSED}",),
        after=(ROLLOUT,),
    ),
    Step(
        "operations.md",
        "## More and fewer Qdrant nodes",
        after=(
            f"{UPGRADE} --set qdrant.replicaCount=6",
            ROLLOUT,
            f"{UPGRADE} {REFUSED}",
            f"{UPGRADE} --set qdrant.allowScaleDown=true",
            ROLLOUT,
            "kubectl -n reco get pvc",
            *GONE,
        ),
    ),
)


class Came(NamedTuple):
    """What came of a command."""

    command: str
    well: bool
    """Whether it did what the page says, which may be that it is refused."""
    says: str


def main(words: list[str] | None = None) -> int:
    """Returns 1 where a command did not do what its page says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.walk", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--write", action="store_true", help="write the table into docs/measurements/deployment.md")
    asked = parser.parse_args(words)
    rows: list[tuple[str, str, str]] = []
    failed = 0
    values: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        mine = Path(folder, "mine.yaml")
        for step in STEPS:
            text = (ROOT / "docs" / step.page).read_text(encoding="utf-8")
            commands, shown, left_out = read_section(text, step.heading)
            values = _merged(values if step.values is None else step.values, shown)
            mine.write_text(yaml.safe_dump(values), encoding="utf-8")
            upgrades = [UPGRADE] if shown and not any("mine.yaml" in each for each in commands) else []
            for came in [run(each, mine) for each in (*step.before, *commands, *upgrades, *step.after)]:
                failed += not came.well
                print(f"{'ok' if came.well else 'FAILED'}: {came.command}\n    {came.says}", flush=True)
                rows.append((step.page, _cell(f"`{came.command}`"), _cell(came.says)))
            if left_out:
                rows.append((step.page, f"{left_out} more", "left out: programs, images or a registry"))
    if asked.write:
        write_blocks(
            ROOT / "docs" / "measurements" / "deployment.md", {"walk": table(("page", "command", "seen"), rows, left=3)}
        )
    print(f"{failed} did not do what their page says" if failed else "all did what their page says")
    return 1 if failed else 0


def read_section(text: str, heading: str) -> tuple[list[str], dict[str, Any], int]:
    """Of a section, up to the next heading: its commands, the values that it shows, how many commands are left out."""
    _, found, rest = f"\n{text}".partition(f"\n{heading}\n")
    if not found:
        raise ValueError(f"there is no section {heading!r}")
    section = re.split(r"^#+ ", rest, maxsplit=1, flags=re.MULTILINE)[0]
    commands: list[str] = []
    shown: dict[str, Any] = {}
    left_out = 0
    for language, block in BLOCK.findall(section):
        if language == "yaml" or re.match(r"[\w.]+:", block):
            shown |= yaml.safe_load(block)
            continue
        for command in _commands(block):
            if NEEDS_MORE.match(command):
                left_out += 1
            else:
                commands.append(command + (f" {REFUSED}" if "preflight=true" in command else ""))
    return commands, shown, left_out


def _cell(text: str) -> str:
    """In a table."""
    line = " ".join(text.split()).replace("|", "\\|")
    return line if text.startswith("`") or len(line) <= 150 else f"{line[:150]} …"


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """As Helm merges values."""
    both = {name: _merged(under[name], each) for name, each in over.items() if isinstance(under.get(name), dict)}
    return under | over | both


def _commands(block: str) -> list[str]:
    """Whole commands of a block, without comments."""
    lines = re.sub(r"\\\n\s*", "", block).splitlines()
    commands: list[str] = []
    for line in (re.sub(r"\s+# .*$", "", each) for each in lines):
        if commands and commands[-1].startswith("for ") and not commands[-1].endswith("done"):
            commands[-1] += f"\n{line.strip()}"
        elif line.strip():
            commands.append(line)
    return commands


def run(command: str, mine: Path) -> Came:
    """Run it in a shell, with that file as mine.yaml."""
    plain = command.removesuffix(REFUSED).strip()
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", plain.replace("mine.yaml", str(mine))],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    refused = done.returncode != 0
    lines = (done.stderr if refused else done.stdout).strip().splitlines() or ["nothing"]
    status = [line for line in lines if line.startswith("STATUS: ")]  # of Helm, before the chart's notes
    warnings = [] if refused else [line for line in done.stderr.splitlines() if "warn" in line.lower()]
    return Came(plain, refused == command.endswith(REFUSED), "; ".join([*warnings, *(status or lines[-1:])])[:300])


if __name__ == "__main__":
    sys.exit(main())
