"""The chart on the cluster that kubectl sees: ``make k8s``, or ``python -m benchmarks.kubernetes --install``.

In a namespace of its own, under Pod Security ``restricted``, each set of tests/deploy/sets.yaml is sent to the API
server as a dry run, which checks it as an install would, with a pod of each template: pods alone are judged by Pod
Security. Kinds that the cluster does not have are left out, and named. With ``--install`` the small one is installed,
upgraded and removed; its images must be on the node (docs/deployment.md). Without a cluster it says so, and passes.
"""

from __future__ import annotations

import argparse
import copy
import json
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
Object = dict[str, Any]
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
    parser.add_argument("--install", action="store_true", help="install the small one, upgrade and remove it")
    asked = parser.parse_args(words)
    kubectl, helm = find("kubectl"), find("helm")
    if kubectl is None or helm is None:
        print(f"skipped: {'kubectl' if kubectl is None else 'helm'} is not here")
        return 0
    seen = kubectl.run("get", "--raw", "/version", "--request-timeout=10s")
    if seen.returncode:
        print(f"skipped: kubectl reaches no cluster ({seen.stderr.strip().splitlines()[-1]})")
        return 0
    version = json.loads(seen.stdout)["gitVersion"]  # Helm's own guess may be older than what the chart needs
    made = kubectl.run("create", "namespace", NAMESPACE)
    if made.returncode:
        print(f"the namespace {NAMESPACE} cannot be made: {made.stderr.strip()}", file=sys.stderr)
        return 1
    try:
        security = [f"pod-security.kubernetes.io/{mode}=restricted" for mode in ("enforce", "warn")]
        kubectl.run("label", "namespace", NAMESPACE, *security)
        kubectl.run("wait", "--for=create", "serviceaccount/default", "--namespace", NAMESPACE, "--timeout=60s")
        failed = [name for name, values in read_sets().items() if not _try(kubectl, helm, version, name, values)]
        if asked.install and not _install(helm):
            failed.append("install")
    finally:
        kubectl.run("delete", "namespace", NAMESPACE, "--wait=false")
    print(f"refused: {', '.join(failed)}" if failed else "nothing was refused")
    return 1 if failed else 0


def _try(kubectl: Tool, helm: Tool, version: str, name: str, values: Object) -> bool:
    """A dry run of one set by the API server."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "values.yaml")
        file.write_text(yaml.safe_dump(values), encoding="utf-8")
        place = ("--namespace", NAMESPACE, "--kube-version", version)
        sent = helm.run("template", "reco", CHART, *place, "--values", file)
    if sent.returncode:
        print(f"{name}: {sent.stderr.strip()}")
        return False
    objects = [each for each in yaml.safe_load_all(sent.stdout) if each]
    left_out = [crd for group, crd in CRDS.items() if _of(objects, group) and kubectl.run("get", "crd", crd).returncode]
    for group, crd in CRDS.items():
        if crd in left_out:
            objects = [each for each in objects if each not in _of(objects, group)]
    text = yaml.safe_dump_all([each for each in objects if each["kind"] != "Pod"] + make_pods(objects))
    done = kubectl.run("apply", "--namespace", NAMESPACE, "--server-side", "--dry-run=server", "-f", "-", text=text)
    said = done.stderr.strip()  # warnings, too
    print(f"{name}: {said or 'taken'}{''.join(f'; without {crd}, which is not there' for crd in left_out)}")
    return done.returncode == 0


def _of(objects: list[Object], group: str) -> list[Object]:
    return [each for each in objects if each["apiVersion"].startswith(f"{group}/")]


def make_pods(objects: list[Object]) -> list[Object]:
    """A pod of each template, as its controller would make it.

    Account and classes are left out, since a dry run makes none, and a pod that names one that is not there is refused.
    """
    pods = []
    for each in objects:
        spec = each.get("spec", {})
        inner = spec.get("jobTemplate", {}).get("spec", spec)
        template = each if each["kind"] == "Pod" else inner.get("template")
        if template is None:
            continue
        inside = copy.deepcopy(template["spec"])
        for name in ("serviceAccountName", "priorityClassName", "runtimeClassName"):
            inside.pop(name, None)
        for claim in spec.get("volumeClaimTemplates", []):
            name = claim["metadata"]["name"]
            inside["volumes"].append({"name": name, "persistentVolumeClaim": {"claimName": name}})
        head = {"name": f"{each['kind'].lower()}-{each['metadata']['name']}", "labels": template["metadata"]["labels"]}
        pods.append({"apiVersion": "v1", "kind": "Pod", "metadata": head, "spec": inside})
    return pods


def _install(helm: Tool) -> bool:
    """The small one: installed, upgraded, removed. Its memory is empty, so that `helm test` has nothing to refine."""
    place = ["--namespace", NAMESPACE, "--values", CHART / "values-small.yaml", "--wait", "--timeout", "10m"]
    done = helm.run("install", "reco", CHART, *place)
    print(f"install: {done.stderr.strip() or 'ready'}")
    if done.returncode == 0:
        done = helm.run("upgrade", "reco", CHART, *place, "--set", "settings.RECO_K=5")
        print(f"upgrade: {done.stderr.strip() or 'ready'}")
    helm.run("uninstall", "reco", "--namespace", NAMESPACE)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
