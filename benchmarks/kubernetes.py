"""The chart on the cluster that kubectl sees: ``make k8s``, or ``python -m benchmarks.kubernetes --install``.

In a namespace of its own, under Pod Security ``restricted``, each set of tests/deploy/sets.yaml is sent to the API
server as a dry run, which checks it as an install would. With ``--install`` the small one is installed and removed; its
images must be on the node (docs/deployment.md). Without a cluster it says so, and passes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from .chart import CHART, read_sets

NAMESPACE = "reco-check"
CRDS = {"monitoring.coreos.com": "servicemonitors.monitoring.coreos.com", "keda.sh": "scaledobjects.keda.sh"}


class Tool:
    """kubectl or Helm."""

    def __init__(self, path: str) -> None:
        self._path = path

    def run(self, *words: object, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """Call it; the caller looks at the exit status."""
        command = [self._path, *map(str, words)]
        return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


def find(name: str) -> Tool | None:
    """A tool of PATH, or of the variable of its name in capitals."""
    path = os.environ.get(name.upper()) or shutil.which(name)
    return Tool(path) if path else None


def main(words: list[str] | None = None) -> int:
    """Returns 1 where something was refused."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kubernetes", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--install", action="store_true", help="install the small one, wait for it, remove it")
    asked = parser.parse_args(words)
    kubectl, helm = find("kubectl"), find("helm")
    if kubectl is None or helm is None:
        print(f"skipped: {'kubectl' if kubectl is None else 'helm'} is not here")
        return 0
    seen = kubectl.run("get", "--raw", "/version", "--request-timeout=10s")
    if seen.returncode:
        print(f"skipped: kubectl reaches no cluster ({seen.stderr.strip().splitlines()[-1]})")
        return 0
    made = kubectl.run("create", "namespace", NAMESPACE)
    if made.returncode:
        print(f"the namespace {NAMESPACE} cannot be made: {made.stderr.strip()}", file=sys.stderr)
        return 1
    try:
        kubectl.run("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
        failed = [name for name, values in read_sets().items() if not _try(kubectl, helm, name, values)]
        if asked.install and not _install(helm):
            failed.append("install")
    finally:
        kubectl.run("delete", "namespace", NAMESPACE, "--wait=false")
    print(f"refused: {', '.join(failed)}" if failed else "nothing was refused")
    return 1 if failed else 0


def _try(kubectl: Tool, helm: Tool, name: str, values: dict[str, Any]) -> bool:
    """A dry run of one set by the API server."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "values.yaml")
        file.write_text(yaml.safe_dump(values), encoding="utf-8")
        sent = helm.run("template", "reco", CHART, "--namespace", NAMESPACE, "--values", file)
    if sent.returncode:
        print(f"{name}: {sent.stderr.strip()}")
        return False
    for group, crd in CRDS.items():
        if f"apiVersion: {group}/" in sent.stdout and kubectl.run("get", "crd", crd).returncode:
            print(f"{name}: skipped, the cluster has no {crd}")
            return True
    done = kubectl.run(
        "apply", "--namespace", NAMESPACE, "--server-side", "--dry-run=server", "-f", "-", text=sent.stdout
    )
    said = done.stderr.strip()  # warnings, too
    print(f"{name}: {said or 'taken'}")
    return done.returncode == 0


def _install(helm: Tool) -> bool:
    """The small one: installed, and removed again. Its memory is empty, so that `helm test` has nothing to refine."""
    small = CHART / "values-small.yaml"
    place = ["--namespace", NAMESPACE]
    done = helm.run("install", "reco", CHART, *place, "--values", small, "--wait", "--timeout", "10m")
    print(f"install: {done.stderr.strip() or 'ready'}")
    helm.run("uninstall", "reco", *place)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
