"""A Kubernetes to try the chart on, made here: ``make k8s-here``, or ``python -m benchmarks.cluster COMMAND …``.

etcd, the API server, the controllers and the scheduler are the real ones, and so are the kinds of the Prometheus
operator and of KEDA; all come from their Go modules, into .cache/cluster. The six nodes only pretend: pods are
admitted, scheduled, given their volumes and called ready, and no container ever runs. So all that the cluster refuses,
warns of, makes and waits for is seen here, and nothing of what the programs do.

COMMAND runs with KUBECONFIG set; without one, the cluster stays until Ctrl-C. Building takes Go 1.26 or later and 25
minutes of a core, once.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import trustme
import yaml

from . import processes
from .kubernetes import find
from .processes import ask, free_port

FOLDER = Path(__file__).resolve().parents[1] / ".cache" / "cluster"
KUBERNETES = "v1.36.3"
STAGED = re.compile(r"^\s*(k8s\.io/[\w-]+) => \./staging/", re.MULTILINE)
"""Modules that live in Kubernetes' own repository, and are published beside it."""
NODES = 6
VOLUMES = 48
PATIENCE_S = 120
TOKEN = secrets.token_hex(16)
Object = dict[str, Any]


class Program(NamedTuple):
    """What is built, and of which module."""

    module: str
    version: str
    package: str


PROGRAMS = {
    "etcd": Program("go.etcd.io/etcd/server/v3", "v3.6.16", ""),
    "kube-apiserver": Program("k8s.io/kubernetes", KUBERNETES, "/cmd/kube-apiserver"),
    "kube-controller-manager": Program("k8s.io/kubernetes", KUBERNETES, "/cmd/kube-controller-manager"),
    "kube-scheduler": Program("k8s.io/kubernetes", KUBERNETES, "/cmd/kube-scheduler"),
}
KINDS = {
    "prometheus-operator": Program(
        "github.com/prometheus-operator/prometheus-operator", "v0.85.0", "/example/prometheus-operator-crd"
    ),
    "keda": Program("github.com/kedacore/keda/v2", "v2.16.1", "/config/crd/bases"),
}


def main(words: list[str] | None = None) -> int:
    """Returns the exit status of the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the programs are built and kept")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="runs with KUBECONFIG set; else until Ctrl-C")
    asked = parser.parse_args(words)
    missing = [name for name in ("go", "kubectl") if find(name) is None]
    if missing:
        named = " and ".join(each.upper() for each in missing)
        print(f"{' and '.join(missing)} must be on PATH, or be named by {named}", file=sys.stderr)
        return 1
    try:
        build(asked.folder)
        with running(asked.folder) as config:
            environment = {**os.environ, "KUBECONFIG": str(config)}
            if asked.command:
                return subprocess.run(asked.command, env=environment, check=False).returncode
            print(f"export KUBECONFIG={config}    # until Ctrl-C", flush=True)
            while True:
                time.sleep(3600)
    except KeyboardInterrupt:
        return 130
    except (RuntimeError, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 1


def build(folder: Path) -> None:
    """Build what is not there yet, one after the other; kinds are taken as they are."""
    binaries = folder / "bin"
    binaries.mkdir(parents=True, exist_ok=True)
    version = f"-X k8s.io/component-base/version.gitVersion={KUBERNETES}"
    for name, program in PROGRAMS.items():
        if (binaries / name).exists():
            continue
        print(f"building {name} of {program.module}@{program.version}", flush=True)
        place = folder / "modules" / program.module.replace("/", "-")
        place.mkdir(parents=True, exist_ok=True)
        (place / "go.mod").write_text(write_module(program, _read_module(program, place)), "utf-8")
        part = binaries / f"{name}.part"
        go("build", "-ldflags", f"-s -w {version}", "-o", part, program.module + program.package, cwd=place)
        part.rename(binaries / name)
    for name, program in KINDS.items():
        if not (folder / "kinds" / name).exists():
            source = json.loads(go("mod", "download", "-json", f"{program.module}@{program.version}", cwd=folder))
            shutil.copytree(source["Dir"] + program.package, folder / "kinds" / f"{name}.part")
            (folder / "kinds" / f"{name}.part").rename(folder / "kinds" / name)


def write_module(program: Program, theirs: str) -> str:
    """A module that needs the program's, whose own go.mod is given: what lives beside it there has to be named here."""
    lines = ["module cluster", "", "go 1.26.0", "", f"require {program.module} {program.version}"]
    beside = program.version.replace("v1.", "v0.", 1)
    lines += [f"replace {module} => {module} {beside}" for module in sorted(set(STAGED.findall(theirs)))]
    return "\n".join(lines) + "\n"


def _read_module(program: Program, place: Path) -> str:
    found = json.loads(go("mod", "download", "-json", f"{program.module}@{program.version}", cwd=place))
    return Path(found["GoMod"]).read_text("utf-8")


def go(*words: object, cwd: Path) -> str:
    """What Go prints. It may fetch modules, and writes what it chose into go.mod."""
    tool = os.environ.get("GO") or "go"
    flags = {"GOFLAGS": "-mod=mod -trimpath", "CGO_ENABLED": "0", "GOWORK": "off"}
    done = subprocess.run(
        [tool, *map(str, words)], cwd=cwd, env={**os.environ, **flags}, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


@contextmanager
def running(folder: Path) -> Iterator[Path]:
    """The kubeconfig of a cluster that is there as long as the block runs, and leaves nothing.

    Raises:
        RuntimeError: A program ended, or did not answer in time; with the end of its log.
    """
    with tempfile.TemporaryDirectory(prefix="cluster-") as temporary, ExitStack() as stack:
        place = Path(temporary)
        store, port = f"http://127.0.0.1:{free_port()}", free_port()
        config = _write_files(place, port)
        trust = ssl.create_default_context(cafile=place / "authority.pem")

        def start(name: str, *flags: str, url: str = "") -> None:
            command, log = [str(folder / "bin" / name), *flags], place / f"{name}.log"

            def answers() -> None:
                if url:
                    ask(url, context=trust)

            stack.enter_context(processes.running(name, command, log, answers, PATIENCE_S, patience_s=20, cwd=place))

        start("etcd", "--data-dir=etcd", f"--listen-client-urls={store}", f"--advertise-client-urls={store}",
              f"--listen-peer-urls=http://127.0.0.1:{free_port()}")  # fmt: skip
        start(
            "kube-apiserver",
            f"--etcd-servers={store}",
            "--bind-address=127.0.0.1",
            f"--secure-port={port}",
            "--tls-cert-file=server.pem",
            "--tls-private-key-file=server.pem",
            "--token-auth-file=tokens.csv",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-account-key-file=key.pem",
            "--service-account-signing-key-file=key.pem",
            "--service-cluster-ip-range=10.96.0.0/16",
            url=f"https://127.0.0.1:{port}/readyz",
        )
        quiet = (f"--kubeconfig={config}", "--leader-elect=false", "--secure-port=0")
        controllers = "--controllers=*,-node-lifecycle-controller"  # which misses signs of life from nodes
        start("kube-controller-manager", *quiet, controllers, "--service-account-private-key-file=key.pem")
        start("kube-scheduler", *quiet)
        _fill(folder, config)
        stack.enter_context(Kubelets(f"https://127.0.0.1:{port}", trust))
        yield config


class Kubelets:
    """Those of all nodes: a pod that is scheduled runs and is ready, one of a job ends, one that is deleted goes."""

    def __init__(self, url: str, trust: ssl.SSLContext | None = None) -> None:
        self._url, self._trust = url, trust
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(0.5):
            try:
                for pod in self._ask("GET", "/api/v1/pods")["items"]:
                    path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"
                    if pod["metadata"].get("deletionTimestamp"):
                        self._ask("DELETE", f"{path}?gracePeriodSeconds=0")
                    elif pod["spec"].get("nodeName") and pod["status"].get("phase") == "Pending":
                        self._ask("PATCH", f"{path}/status", {"status": make_status(pod)})
            except OSError as error:  # a pod that has gone meanwhile, or a server that ends
                if not isinstance(error, HTTPError) or error.code not in (404, 409):
                    self._ended.wait(1)

    def _ask(self, method: str, path: str, body: Object | None = None) -> Object:
        head = {"authorization": f"Bearer {TOKEN}", "content-type": "application/merge-patch+json"}
        text = None if body is None else json.dumps(body).encode()
        with urlopen(Request(self._url + path, text, head, method=method), timeout=10, context=self._trust) as answer:
            found: Object = json.load(answer)
            return found


def make_status(pod: Object) -> Object:
    """Of a pod whose containers all run; or have ended well, in a job."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    ends = pod["spec"]["restartPolicy"] != "Always"
    state = (
        {"terminated": {"exitCode": 0, "startedAt": now, "finishedAt": now}}
        if ends
        else {"running": {"startedAt": now}}
    )
    ready = "False" if ends else "True"
    whole = {"PodScheduled": "True", "Initialized": "True", "ContainersReady": ready, "Ready": ready}
    return {
        "phase": "Succeeded" if ends else "Running",
        "podIP": "10.0.0.1",
        "podIPs": [{"ip": "10.0.0.1"}],
        "startTime": now,
        "conditions": [{"type": name, "status": value, "lastTransitionTime": now} for name, value in whole.items()],
        "containerStatuses": [
            {
                "name": each["name"],
                "image": each["image"],
                "imageID": "",
                "ready": not ends,
                "restartCount": 0,
                "state": state,
            }
            for each in pod["spec"]["containers"]
        ],
    }


def _write_files(place: Path, port: int) -> Path:
    """Keys, certificates and tokens of the server; returns the kubeconfig of its administrator."""
    authority = trustme.CA(key_type=trustme.KeyType.RSA)
    authority.private_key_pem.write_to_path(place / "key.pem")  # signs tokens of service accounts, too
    authority.cert_pem.write_to_path(place / "authority.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(place / "server.pem")
    (place / "tokens.csv").write_text(f"{TOKEN},admin,1,system:masters\n", "utf-8")
    here = {"cluster": "here", "user": "admin"}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "here",
                "cluster": {
                    "server": f"https://127.0.0.1:{port}",
                    "certificate-authority": str(place / "authority.pem"),
                },
            }
        ],
        "users": [{"name": "admin", "user": {"token": TOKEN}}],
        "contexts": [{"name": "here", "context": here}],
        "current-context": "here",
    }
    path = place / "kubeconfig"
    path.write_text(yaml.safe_dump(config), "utf-8")
    path.chmod(0o600)
    return path


def _fill(folder: Path, config: Path) -> None:
    kubectl = find("kubectl")
    assert kubectl is not None
    apply = ("--kubeconfig", config, "apply", "--server-side", "-f")
    for done in (
        kubectl.run(*apply, "-", text=yaml.safe_dump_all(make_objects())),
        *(kubectl.run(*apply, folder / "kinds" / name) for name in KINDS),
    ):
        if done.returncode:
            raise RuntimeError(f"kubectl: {done.stderr.strip()}")
    kubectl.run("--kubeconfig", config, "taint", "node", "--all", "node.kubernetes.io/not-ready:NoSchedule-")


def make_objects() -> list[Object]:
    """Nodes in three zones, a class of storage that is the default, and volumes of it."""
    has = {"cpu": "32", "memory": "128Gi", "nvidia.com/gpu": "4", "pods": "110", "ephemeral-storage": "200Gi"}
    objects: list[Object] = []
    for number in range(NODES):
        labels = {
            "kubernetes.io/hostname": f"node-{number}",
            "topology.kubernetes.io/zone": f"zone-{'abc'[number % 3]}",
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
        }
        node = {"name": f"node-{number}", "labels": labels}
        ready = {"type": "Ready", "status": "True", "reason": "Pretends", "message": "runs nothing"}
        status = {"capacity": has, "allocatable": has, "conditions": [ready]}
        objects.append({"apiVersion": "v1", "kind": "Node", "metadata": node, "spec": {}, "status": status})
    default = {"storageclass.kubernetes.io/is-default-class": "true"}
    objects.append(
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": "standard", "annotations": default},
            "provisioner": "kubernetes.io/no-provisioner",
            "volumeBindingMode": "WaitForFirstConsumer",
            "allowVolumeExpansion": True,
        }
    )
    for number in range(VOLUMES):
        spec = {
            "capacity": {"storage": "500Gi"},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "standard",
            "hostPath": {"path": f"/volumes/{number}"},
        }
        head = {"name": f"volume-{number}"}
        objects.append({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": head, "spec": spec})
    return objects


if __name__ == "__main__":
    sys.exit(main())
