"""deploy/nginx.conf: within the limits of the service, and one that nginx reads."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from reco_plugin.serve.settings import ServeSettings

pytestmark = pytest.mark.slow

FILE = Path("deploy", "nginx.conf")


def test_its_limits_are_those_of_the_service(root: Path) -> None:
    text, settings = (root / FILE).read_text("utf-8"), ServeSettings()
    found = {name: int(number) for name, number in re.findall(r"(\w+) (\d+)[ms];", text)}
    assert found["client_max_body_size"] << 20 >= settings.max_body_bytes
    assert found["proxy_read_timeout"] > settings.deadline_s
    assert f"127.0.0.1:{settings.port};" in text


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_nginx_reads_it(root: Path, tmp_path: Path) -> None:
    command = ["nginx", "-t", "-c", str(root / FILE), "-p", str(tmp_path), "-g", f"pid {tmp_path}/nginx.pid;"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
