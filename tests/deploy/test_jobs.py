"""Jobs of the chart: what they run, when, and the scripts that they and `helm test` run, asked over HTTP."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
from live_service import serve_on_a_free_port

from benchmarks.chart import CHART
from reco_plugin import Reco
from reco_plugin.cli.app import app

from .conftest import SETS
from .objects import Object, kinds_of, on_each_set, pods_of, template_of, variables

Render = Callable[..., list[Object]]
CAPTION = "a large red circle"  # of a drawing in the memory
COMMAND = typer.main.get_command(app)


def _container(workload: Object) -> Object:
    template = template_of(workload)
    assert template is not None
    return template["spec"]["containers"][0]


def _parses(words: list[str]) -> None:
    """Refuse what the command line would refuse."""
    command, context = COMMAND, COMMAND.context_class(COMMAND)
    while hasattr(command, "get_command"):
        found = command.get_command(context, words[0])
        assert found is not None, words
        command, words = found, words[1:]
    command.make_parser(context).parse_args(words)


@on_each_set
def test_each_job_runs_a_command_that_there_is(manifests: list[Object]) -> None:
    for workload in kinds_of(manifests, "Job", "CronJob"):
        container = _container(workload)
        if "args" in container:
            _parses(container["args"])
        template = template_of(workload)
        assert template is not None and template["spec"]["restartPolicy"] == "Never"


def test_filling_goes_on_where_it_stopped(render: Render) -> None:
    [job] = kinds_of(render(SETS["fill-from-a-claim"]), "Job")
    container = _container(job)
    assert container["args"] == [
        "memory",
        "build",
        "/data/catalogue.csv",
        "--swap",
        "--resume",
        "--option",
        "replicas=2",
    ]
    assert container["image"] == "reco-plugin:0.1.0-jobs"
    assert job["spec"]["backoffLimit"] == 6
    assert {"name": "data", "persistentVolumeClaim": {"claimName": "catalogue", "readOnly": True}} in template_of(job)[
        "spec"
    ]["volumes"]  # type: ignore[index]
    [default] = kinds_of(render({"jobs": {"fill": {"enabled": True, "source": "a.csv"}}}), "Job")
    assert _container(default)["args"][-2:] == ["--swap", "--resume"]


def test_a_source_in_a_bucket_is_fetched_before(render: Render) -> None:
    manifests = render(SETS["fill-from-a-bucket"])
    [job] = kinds_of(manifests, "Job")
    container = _container(job)
    assert container["args"][2] == "/data/catalogue.parquet?id=sku&image=photo_url&text=title"
    fetch = job["spec"]["template"]["spec"]["initContainers"][-1]
    assert fetch["env"] == [
        {"name": "SOURCE", "value": "s3://shop/export/catalogue.parquet"},
        {"name": "TARGET", "value": "/data"},
    ]
    assert fetch["image"] == container["image"] and fetch["envFrom"] == [{"secretRef": {"name": "bucket"}}]
    [scripts] = [each for each in kinds_of(manifests, "ConfigMap") if each["metadata"]["name"] == "reco-scripts"]
    assert list(scripts["data"]) == ["fetch.py"]
    data = next(each for each in job["spec"]["template"]["spec"]["volumes"] if each["name"] == "data")
    assert data["emptyDir"] == {"sizeLimit": "100Gi"}


def test_a_pattern_with_a_question_mark_has_no_options(render: Render) -> None:
    for source, asked, options in (
        ("s3://shop/train-0?.tar", "s3://shop/train-0?.tar", ""),
        ("s3://shop/train-0?.tar?limit=9&id=sku", "s3://shop/train-0?.tar", "?limit=9&id=sku"),
    ):
        [job] = kinds_of(render({"jobs": {"fill": {"enabled": True, "source": source}}}), "Job")
        fetch = job["spec"]["template"]["spec"]["initContainers"][-1]
        assert fetch["env"][0] == {"name": "SOURCE", "value": asked}
        assert _container(job)["args"][2] == f"/data/train-0?.tar{options}"


@pytest.mark.parametrize(
    "source",
    [
        "s3://AKIA:h/idden@shop/catalogue.csv",
        "s3://AKIA:hidden@shop/catalogue.csv",
        "gs://hidden@shop/catalogue.csv",
        "postgresql://reader:hidden@db/shop?table=products",
    ],
)
def test_a_key_in_a_source_is_refused_and_not_repeated(render: Render, source: str) -> None:
    """It would stand in the release, in the job and in its log."""
    with pytest.raises(Exception, match=r"jobs\.fill\.source holds a key.*jobs\.extraEnvFrom") as refused:
        render({"jobs": {"fill": {"enabled": True, "source": source}}})
    assert "hidden" not in str(refused.value)
    kept = "http://qdrant:6333?collection=shop@1"
    assert kinds_of(render({"jobs": {"sync": {"enabled": True, "source": kept}}}), "CronJob")


@pytest.mark.parametrize(
    ("source", "copied"),
    [
        ("catalogue.csv", {"catalogue.csv"}),
        ("shards/{000..001}.tar", {"000.tar", "001.tar"}),
        ("shards/0*.tar", {"000.tar", "001.tar", "002.tar"}),
        ("shards/00?.tar", {"000.tar", "001.tar", "002.tar"}),
        ("late export/100% wool.csv", {"100% wool.csv"}),
        ("photos/", {"photos/a/1.png", "photos/a/1.txt"}),
    ],
)
def test_a_file_a_folder_or_a_pattern_is_fetched(tmp_path: Path, source: str, copied: set[str]) -> None:
    for name in (
        "catalogue.csv",
        "late export/100% wool.csv",
        *(f"shards/00{number}.tar" for number in range(3)),
        "photos/a/1.png",
        "photos/a/1.txt",
    ):
        (tmp_path / "bucket" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "bucket" / name).write_text(name, "utf-8")
    target = tmp_path / "data"
    done = _run("fetch.py", SOURCE=f"file://{tmp_path}/bucket/{source}", TARGET=str(target))
    assert done.returncode == 0, done.stderr
    assert {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()} == copied


def test_a_source_that_is_not_there_says_so(tmp_path: Path) -> None:
    missing = _run("fetch.py", SOURCE=f"file://{tmp_path}/a.csv", TARGET=str(tmp_path / "data"))
    assert (missing.returncode, missing.stderr) == (1, f"file://{tmp_path}/a.csv: there is nothing of that name\n")
    unread = _run("fetch.py", SOURCE=f"file://{tmp_path}/none/a.csv", TARGET=str(tmp_path / "data"))
    assert unread.returncode == 1 and "a.csv cannot be read: " in unread.stderr


def test_a_job_writes_and_the_service_reads(render: Render) -> None:
    pods = {pod.owner: variables(pod) for pod in pods_of(render(SETS["fill-from-a-claim"]))}
    keys = {name: pods[name]["RECO_MEMORY_API_KEY"]["secretKeyRef"]["key"] for name in ("job", "plugin")}
    assert keys == {"job": "api-key", "plugin": "read-only-api-key"}
    assert pods["job"]["RECO_MEMORY"] == pods["plugin"]["RECO_MEMORY"]


def test_other_values_make_another_job_and_another_chart_does_not(render: Render) -> None:
    """The pods of a job cannot change, so an upgrade would be refused; and filling anew for nothing takes hours."""

    def name(**fill: Any) -> str:
        [job] = kinds_of(render({"jobs": {"fill": {"enabled": True, "source": "a.csv", **fill}}}), "Job")
        assert "helm.sh/chart" not in job["spec"]["template"]["metadata"]["labels"]
        return str(job["metadata"]["name"])

    assert name() == name()
    assert name() != name(source="b.csv")


def test_syncing_follows_its_schedule(render: Render) -> None:
    [job] = kinds_of(render(SETS["sync-with-an-index"]), "CronJob")
    spec = job["spec"]
    assert (spec["schedule"], spec["timeZone"], spec["concurrencyPolicy"]) == (
        "*/30 * * * *",
        "Europe/Berlin",
        "Forbid",
    )
    container = _container(job)
    assert container["args"][:2] == ["memory", "sync"] and container["args"][2].startswith("postgresql://reader@db/")
    assert {"name": "RECO_INDEX_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "shop-db", "key": "password"}}} in (
        container["env"]
    )
    [policy] = [
        each
        for each in kinds_of(render(SETS["sync-with-an-index"]), "NetworkPolicy")
        if "jobs" in each["metadata"]["name"]
    ]
    assert {"ports": [{"port": 5432}]} in policy["spec"]["egress"]
    jobs = {each["metadata"]["name"]: each["spec"] for each in kinds_of(render(SETS["all-jobs"]), "CronJob")}
    assert jobs.keys() == {"reco-sync", "reco-calibrate", "reco-snapshots"}
    assert jobs["reco-sync"]["suspend"] is True
    deadline = jobs["reco-sync"]["jobTemplate"]["spec"]["activeDeadlineSeconds"]
    assert deadline == 10000000


def test_a_job_gets_the_settings_of_the_service_that_are_the_librarys(render: Render) -> None:
    settings = {"RECO_MEMORY_COLLECTION": "shop", "RECO_SERVE_THREADS": 4}
    made = render({"settings": settings, "jobs": {"calibrate": {"enabled": True}}})
    [values] = [variables(pod) for pod in pods_of(made) if pod.owner == "job"]
    assert values["RECO_MEMORY_COLLECTION"] == "shop" and "RECO_SERVE_THREADS" not in values


class Asked(NamedTuple):
    """A server's URL, and what it was asked."""

    url: str
    calls: list[str]


@pytest.fixture
def qdrant() -> Iterator[Asked]:
    """What a node of Qdrant answers about aliases and snapshots, by its REST interface of 1.19."""
    snapshots = {
        name: [
            {"name": f"old-{day}.snapshot", "creation_time": f"2026-11-{day}T02:47:00", "size": 1000}
            for day in (25, 26, 27)
        ]
        for name in ("reco--v7", "reco--v7--learned")
    }
    calls: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def _do(self) -> None:
            calls.append(f"{self.command} {self.path}")
            if self.headers.get("api-key") != "writes":
                self.send_response(401)
                self.end_headers()
                self.wfile.write(b"Must provide an API key")
                return
            result: Any = True
            mine = snapshots.get(self.path.split("/")[2] if self.path.count("/") > 1 else "", [])
            if self.path == "/aliases":
                result = {"aliases": [{"alias_name": "reco", "collection_name": "reco--v7"}]}
            elif self.path == "/collections/reco/points/scroll":
                result = {"points": [{"id": 1, "payload": {}}, {"id": 2, "payload": {"caption": CAPTION}}]}
            elif self.path.endswith("/exists"):
                result = {"exists": bool(mine)}
            elif self.command == "POST":
                result = {"name": "new.snapshot", "creation_time": "2026-11-28T02:47:00", "size": 2000}
                mine.append(result)
            elif self.command == "GET":
                result = mine
            else:
                mine[:] = [each for each in mine if not self.path.endswith(f"/{each['name']}")]
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"result": result, "status": "ok"}).encode())

        do_GET = do_POST = do_DELETE = _do

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Asked(f"http://127.0.0.1:{server.server_port}", calls)
    server.shutdown()
    server.server_close()


def _run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", CHART / "files" / script]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_snapshots_are_of_the_collection_in_use_and_old_ones_go(qdrant: Asked) -> None:
    done = _run("snapshots.py", NODES=qdrant.url, KEEP="2", RECO_MEMORY_API_KEY="writes")
    assert done.returncode == 0, done.stderr
    assert qdrant.calls == [
        "GET /aliases",
        "POST /collections/reco--v7/snapshots",
        "GET /collections/reco--v7/snapshots",
        "DELETE /collections/reco--v7/snapshots/old-26.snapshot",
        "DELETE /collections/reco--v7/snapshots/old-25.snapshot",
        "GET /collections/reco--v7--learned/exists",  # it may have been made meanwhile
        "POST /collections/reco--v7--learned/snapshots",  # after the one that names what is in it
        "GET /collections/reco--v7--learned/snapshots",
        "DELETE /collections/reco--v7--learned/snapshots/old-26.snapshot",
        "DELETE /collections/reco--v7--learned/snapshots/old-25.snapshot",
    ]
    assert "reco--v7/new.snapshot, 2,000 bytes" in done.stdout
    assert "reco--v7--learned/new.snapshot, 2,000 bytes" in done.stdout


def test_snapshots_of_all_nodes_are_taken_before_any_of_what_they_name(qdrant: Asked) -> None:
    nodes = f"{qdrant.url},{qdrant.url}"
    done = _run("snapshots.py", NODES=nodes, KEEP="9", RECO_MEMORY_API_KEY="writes")
    assert done.returncode == 0, done.stderr
    taken = [call.split("/")[2] for call in qdrant.calls if call.startswith("POST")]
    assert taken == ["reco--v7", "reco--v7", "reco--v7--learned", "reco--v7--learned"]


def test_snapshots_of_a_memory_that_learned_nothing_are_of_one_collection(qdrant: Asked) -> None:
    done = _run("snapshots.py", NODES=qdrant.url, KEEP="9", RECO_MEMORY_API_KEY="writes", RECO_MEMORY_COLLECTION="new")
    assert done.returncode == 0, done.stderr
    assert [call for call in qdrant.calls if call.startswith("POST")] == ["POST /collections/new/snapshots"]


def test_snapshots_that_fail_say_why(qdrant: Asked) -> None:
    refused = _run("snapshots.py", NODES=qdrant.url, KEEP="2")
    assert refused.returncode == 1
    assert "/aliases answered 401: Must provide an API key" in refused.stderr
    away = _run("snapshots.py", NODES="http://127.0.0.1:1", KEEP="2", RECO_MEMORY_API_KEY="writes")
    assert away.returncode == 1 and "does not answer" in away.stderr and "writes" not in away.stderr


def test_snapshots_are_taken_on_each_node(render: Render) -> None:
    made = render({"jobs": {"snapshots": {"enabled": True, "keep": 5}}, "qdrant": {"replicaCount": 4}})
    [job] = kinds_of(made, "CronJob")
    container = _container(job)
    values = {each["name"]: each.get("value") for each in container["env"]}
    nodes = values["NODES"].split(",")
    assert len(nodes) == 4 and nodes[3] == "http://reco-qdrant-3.reco-qdrant-headless:6333"
    assert values["KEEP"] == "5"
    [scripts] = [each for each in kinds_of(made, "ConfigMap") if each["metadata"]["name"] == "reco-scripts"]
    assert scripts["data"]["snapshots.py"] == (CHART / "files" / "snapshots.py").read_text("utf-8")
    assert container["command"] == ["python", "/script/snapshots.py"]


def test_the_test_of_the_release_runs_its_script(render: Render) -> None:
    [pod] = kinds_of(render({"test": {"text": "a red fox"}}), "Pod")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    [container] = pod["spec"]["containers"]
    assert container["command"] == ["python", "-c"]
    assert container["args"] == [(CHART / "files" / "refined.py").read_text("utf-8")]
    values = {each["name"]: each.get("value") for each in container["env"]}
    assert (values["SERVICE"], values["TEXT"]) == ("http://reco:8080", "a red fox")
    assert not kinds_of(render({"service": {"enabled": False}}), "Pod")


def test_a_text_that_the_memory_knows_comes_out_refined(filled: Reco, qdrant: Asked) -> None:
    memory = {"RECO_MEMORY": qdrant.url, "RECO_MEMORY_API_KEY": "writes"}
    with serve_on_a_free_port(filled, api_keys=["k1", "k2"]) as (url, _):
        asked = _run("refined.py", SERVICE=url, CALLER_KEYS="k2,k1", TEXT="", **memory)
        assert asked.returncode == 0, asked.stderr
        assert asked.stdout == f"refined (true), 128 numbers each: [{CAPTION!r}]\n"
        refused = _run("refined.py", SERVICE=url, CALLER_KEYS="of-nobody", TEXT=CAPTION)
        assert refused.returncode == 1
        assert "/v1/embeddings answered 401" in refused.stderr and "of-nobody" not in refused.stderr


def test_a_text_that_stays_plain_fails_with_the_reason(reco: Reco) -> None:
    with serve_on_a_free_port(reco) as (url, _):
        plain = _run("refined.py", SERVICE=url, TEXT="a red fox")
    assert plain.returncode == 1
    assert "['a red fox'] stay plain (x-reco-refined: false)" in plain.stderr
    away = _run("refined.py", SERVICE="http://127.0.0.1:1", TEXT="a red fox")
    assert away.returncode == 1 and "does not answer" in away.stderr
