"""`make k8s`: what it asks of kubectl and Helm, which programs of the test stand for."""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import kubernetes_validate
import pytest

from benchmarks import cluster, kubernetes, walk

from .conftest import SETS
from .objects import Object, pods_of

STANDS_FOR = """#!{python}
import json, sys
words, text = sys.argv[1:], "" if sys.stdin.isatty() or "-" not in sys.argv else sys.stdin.read()
with open({log!r}, "a") as log:
    log.write(json.dumps([{name!r}, words, len(text)]) + "\\n")
if any(word in words for word in {fails!r}):
    sys.exit("error: " + words[0] + " is refused here")
if "/version" in words:
    print('{{"gitVersion": "v1.36.3"}}')
if words[0] == "template":
    print("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: a}}}}")
    print("---")
    print("{{apiVersion: keda.sh/v1alpha1, kind: ScaledObject}}")
"""


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run it beside such programs; returns the exit status and the calls."""

    def run(*words: str, fails: tuple[str, ...] = ()) -> tuple[int, list[tuple[str, list[str], int]]]:
        log = tmp_path / "log"
        for name in ("kubectl", "helm"):
            program = tmp_path / name
            program.write_text(STANDS_FOR.format(python=sys.executable, log=str(log), name=name, fails=fails), "utf-8")
            program.chmod(0o755)
            monkeypatch.setenv(name.upper(), str(program))
        monkeypatch.setattr(kubernetes, "read_sets", lambda: {name: SETS[name] for name in ("defaults", "small")})
        status = kubernetes.main(list(words))
        return status, [tuple(json.loads(line)) for line in log.read_text("utf-8").splitlines()]

    return run


def test_each_set_is_sent_and_the_namespace_goes_again(asked, capsys: pytest.CaptureFixture[str]) -> None:
    status, calls = asked()
    assert status == 0
    assert capsys.readouterr().out.splitlines() == ["defaults: taken", "small: taken", "nothing was refused"]
    verbs = [words[0] for _, words, _ in calls]
    assert verbs == ["get", "create", "label", "wait", *2 * ["template", "get", "apply"], "delete"]
    for _, words, length in calls:
        if words[0] == "template":
            assert words[-4:-2] == ["--kube-version", "v1.36.3"], (
                "that of the cluster, since Helm's guess may be too old"
            )
        if words[0] == "apply":
            assert {"--server-side", "--dry-run=server"} <= set(words) and length > 0


def test_what_is_refused_is_named(asked, capsys: pytest.CaptureFixture[str]) -> None:
    status, calls = asked("--install", fails=("apply", "install"))
    assert status == 1
    assert "refused: defaults, small, install" in capsys.readouterr().out
    assert [words[0] for _, words, _ in calls][-3:] == ["install", "uninstall", "delete"]


def test_what_the_cluster_does_not_know_is_left_out_and_named(asked, capsys: pytest.CaptureFixture[str]) -> None:
    status, calls = asked(fails=("crd",))
    assert status == 0
    assert "small: taken; without scaledobjects.keda.sh, which is not there" in capsys.readouterr().out
    _, known = asked()
    lengths = [[length for _, words, length in each if words[0] == "apply"] for each in (calls, known[len(calls) :])]
    assert lengths[0][0] < lengths[1][0]


def test_a_pod_of_each_template_is_tried(each_set: dict[str, list[Object]]) -> None:
    """As a controller would make it; an owner of pods is taken under `restricted`, whatever its pods are like."""
    for name, manifests in each_set.items():
        pods = kubernetes.make_pods(manifests)
        assert len(pods) == len(pods_of(manifests)) > 0
        for pod in pods:
            kubernetes_validate.validate(pod, "1.36", strict=True)
            volumes = {volume["name"] for volume in pod["spec"].get("volumes", [])}
            for container in pod["spec"].get("initContainers", []) + pod["spec"]["containers"]:
                assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes, (name, pod)
                assert container["securityContext"]["allowPrivilegeEscalation"] is False, (name, container["name"])


def test_the_pages_commands_are_read_as_they_stand(root: Path) -> None:
    read = [walk.read_section((root / "docs" / step.page).read_text("utf-8"), step.heading) for step in walk.STEPS]
    commands = [command for each, _, _ in read for command in each]
    assert len(commands) > 15 and all(command.startswith(("helm ", "kubectl ", "for ")) for command in commands)
    shown = [values for _, values, _ in read if values]
    assert {"triton", "metrics"} <= shown[0].keys() and shown[1].keys() == {"jobs"}
    text = (
        "## A\n```\nhelm install a \\\n  b   # why\nreco doctor\nfor n in 0 1; do\n  kubectl get $n\ndone\n```\n### B\n"
    )
    assert walk.read_section(text, "## A") == (["helm install a b", "for n in 0 1; do\nkubectl get $n\ndone"], {}, 1)


def test_a_command_that_is_to_be_refused_and_is_not_fails(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("of the page\n", "utf-8")
    assert walk.run("cat mine.yaml", mine) == ("cat mine.yaml", True, "of the page")
    assert walk.run(f"cat mine.yaml {walk.REFUSED}", mine) == ("cat mine.yaml", False, "of the page")
    assert walk.run(f"echo no >&2; false {walk.REFUSED}", mine) == ("echo no >&2; false", True, "no")
    assert not walk.run("echo no >&2; false", mine).well


def test_what_lives_beside_kubernetes_is_of_its_version() -> None:
    theirs = "require (\n\tk8s.io/api v0.0.0\n)\nreplace (\n\tk8s.io/api => ./staging/src/k8s.io/api\n)\n"
    program = cluster.PROGRAMS["kube-apiserver"]
    made = cluster.write_module(program, theirs)
    assert f"require k8s.io/kubernetes {program.version}\n" in made
    assert f"replace k8s.io/api => k8s.io/api v0{program.version.removeprefix('v1')}\n" in made
    assert "replace" not in cluster.write_module(cluster.PROGRAMS["etcd"], "require k8s.io/klog/v2 v2.1.0\n")


def test_pods_run_or_end_and_go_where_no_kubelet_is() -> None:
    pod: Object = {
        "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"nodeName": "node-1", "restartPolicy": "Always", "containers": [{"name": "web", "image": "web:1.0"}]},
        "status": {"phase": "Pending"},
    }
    job = pod | {"spec": pod["spec"] | {"restartPolicy": "Never"}, "metadata": pod["metadata"] | {"name": "fill"}}
    gone = pod | {"metadata": {"namespace": "shop", "name": "gone", "deletionTimestamp": "2026-11-28T23:00:00Z"}}
    waits = pod | {"spec": pod["spec"] | {"nodeName": None}, "metadata": pod["metadata"] | {"name": "waits"}}
    asked: dict[str, str | None] = {}
    done = threading.Event()

    class Server(BaseHTTPRequestHandler):
        def _do(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            if self.command != "GET":
                asked[f"{self.command} {self.path}"] = json.loads(body)["status"]["phase"] if body else None
            if len(asked) == 3:
                done.set()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"items": [pod, job, gone, waits]}).encode())

        do_GET = do_PATCH = do_DELETE = _do

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with cluster.Kubelets(f"http://127.0.0.1:{server.server_port}"):
            assert done.wait(60)
        server.shutdown()
    place = "/api/v1/namespaces/shop/pods"
    assert asked == {
        f"PATCH {place}/web/status": "Running",
        f"PATCH {place}/fill/status": "Succeeded",
        f"DELETE {place}/gone?gracePeriodSeconds=0": None,
    }
    for each in (pod, job):
        each = {"apiVersion": "v1", "kind": "Pod"} | each | {"status": cluster.make_status(each)}
        kubernetes_validate.validate(each, "1.36", strict=True)


def test_a_cluster_that_cannot_be_made_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("GO", "KUBECTL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "")
    assert cluster.main([]) == 1
    assert capsys.readouterr().err == "go and kubectl must be on PATH, or be named by GO and KUBECTL\n"


def test_without_a_cluster_it_says_what_it_skipped(asked, capsys: pytest.CaptureFixture[str]) -> None:
    status, calls = asked(fails=("/version",))
    assert status == 0 and len(calls) == 1
    assert "skipped: kubectl reaches no cluster (error: get is refused here)" in capsys.readouterr().out


def test_without_the_tools_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("KUBECTL", "HELM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "")
    assert kubernetes.main([]) == 0
    assert capsys.readouterr().out == "skipped: kubectl is not here\n"
