"""A process that forks after a Reco was opened: errors in the child, no hang, and nothing lost in the parent."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

SCRIPT = """
import os, sys
from PIL import Image
from reco_plugin import Pair, Reco

with Reco.open(sys.argv[1], memory=sys.argv[2]) as reco:
    reco.memory.add([Pair("red", Image.new("RGB", (64, 64), "red"), "a red square")])
    frozen = reco.embed_texts(["a red square"], refine=False)
    if (child := os.fork()) == 0:
        for name, call in {
            "embed": lambda: reco.embed_texts(["a blue square"], refine=False),
            "refine": lambda: reco.refine(frozen, modality="text"),
            "add": lambda: reco.memory.add_records(reco.memory.store.scroll()),
            "count": lambda: len(reco.memory),
        }.items():
            try:
                print(name, "->", call(), flush=True)
            except Exception as error:
                print(name, type(error).__name__, error, flush=True)
        reco.close()
        os._exit(0)
    os.waitpid(child, 0)
    print("parent", len(reco.memory), reco.embed_texts(["a red square"]).shape, flush=True)
"""


@pytest.mark.slow
def test_what_was_opened_before_a_fork_is_refused_in_it(model, tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(SCRIPT), str(model), str(tmp_path / "memory")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    *refused, parent = done.stdout.splitlines()
    assert [line.split()[:2] for line in refused] == [
        ["embed", "SessionError"],
        ["refine", "SessionError"],
        ["add", "MemoryStoreError"],
        ["count", "MemoryStoreError"],
    ]
    assert all("was opened before this process was forked" in line for line in refused)
    assert parent == "parent 1 (1, 128)"


@pytest.mark.slow
def test_a_model_that_was_not_used_before_the_fork_may_be_used_in_it(model):
    script = """
import os, sys
from reco_plugin.encoders.model_folder import Artifact
from reco_plugin.settings import load_settings
from reco_plugin.encoders.local import Encoder

encoder = Encoder(Artifact.load(sys.argv[1]), load_settings())
if (child := os.fork()) == 0:
    print(encoder.texts(["a red square"]).shape, flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""
    command = [sys.executable, "-W", "ignore", "-c", script, str(model)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "(1, 128)\n"
