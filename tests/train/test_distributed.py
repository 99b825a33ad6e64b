"""Training by several processes is training by one, and a killed run ends as one that was not.

Processes here are real ones, joined over gloo on the CPU.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import distributed_worker as worker
import numpy as np
import pytest
import torch
from lean_start import ENVIRONMENT
from terminal import run_on_a_terminal

from reco_plugin.data import write_pairs
from reco_plugin.errors import ConfigError, DataError
from reco_plugin.memory import Fingerprint, open_memory
from reco_plugin.train.data import Batches, FusionData, gather, open_data
from reco_plugin.train.loop import CHECKPOINT, FUSION, TrainConfig, load_fusions, train_fusions
from reco_plugin.train.model import FusionConfig
from reco_plugin.train.processes import Processes, start
from reco_plugin.train.recipe import Recipe
from reco_plugin.train.run import begin, train
from reco_plugin.types import MODALITIES, Records

pytestmark = pytest.mark.xdist_group("distributed")  # one worker trains for all
GROUPS, EACH, D = 40, 4, worker.D


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def pairs() -> Records:
    rng, count = np.random.default_rng(0), GROUPS * EACH
    image, text = unit(rng.normal(size=(count, D))), unit(rng.normal(size=(count, D)))
    return Records(
        [f"p{i}" for i in range(count)], image, text, [{"caption": f"thing {i // EACH}"} for i in range(count)]
    )


@pytest.fixture(scope="module")
def folder(pairs: Records, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the training set, in files."""
    made = tmp_path_factory.mktemp("distributed")
    with closing(open_memory(":memory:", Fingerprint("mini", "ab" * 32, D))) as memory:
        memory.upsert(pairs)
        gather(memory, pairs, 5, [p["caption"] for p in pairs.payloads], folder=made / "training")
    return made


@pytest.fixture(scope="module")
def data(folder: Path) -> FusionData:
    return open_data(folder / "training")


@pytest.fixture(scope="module")
def two(folder: Path) -> list[dict[str, dict[str, torch.Tensor]]]:
    """What two processes trained: name of the run -> weights, of each process."""
    done = run_on_a_terminal([sys.executable, worker.__file__, str(folder)], env=ENVIRONMENT, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr
    assert done.stderr.count("train fusions:   0%") == 3, "one process shows progress"
    return [torch.load(folder / f"states-{rank}.pt") for rank in range(2)]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_two_processes_train_what_one_does(
    two: list[dict[str, dict[str, torch.Tensor]]], folder: Path, data: FusionData, tmp_path: Path
) -> None:
    """Weights, and the mean gradients in AdamW's state, after all steps; dropout apart, whose masks each draws."""
    config = FusionConfig("paper", D, dropout=0.0)
    alone = train_fusions(data, config, tmp_path, worker.SHORT).state_dict()
    start_of = train_fusions(data, config, tmp_path / "0", TrainConfig(steps=0)).state_dict()
    moved = 0.0
    for name, together in two[0]["plain"].items():
        difference = (together - alone[name]).abs()
        if name.endswith("in_proj.bias"):
            difference[D : 2 * D] = 0  # attention does not feel a bias of all keys: its gradient is rounding alone
        assert difference.max() < 1e-5, name
        moved = max(moved, float((alone[name] - start_of[name]).abs().max()))
    assert moved > 1e-3, "nothing was trained"
    states = [torch.load(path / CHECKPOINT)["optimizer"]["state"] for path in (tmp_path, folder / "plain")]
    for one, both in zip(*(state.values() for state in states), strict=True):
        scale = one["exp_avg"].abs().max()
        assert scale > 1e-6 and (one["exp_avg"] - both["exp_avg"]).abs().max() < 1e-5 * scale


def test_all_processes_end_with_the_same_weights_also_after_an_interruption(
    two: list[dict[str, dict[str, torch.Tensor]]], folder: Path
) -> None:
    first, second = two
    for name in ("plain", "whole", "cut"):
        assert same(first[name], second[name])
        assert same(first[name], load_fusions(folder / name / FUSION).state_dict())
    assert same(first["cut"], first["whole"]) and not same(first["whole"], first["plain"])
    assert len(list((folder / "whole" / "tensorboard").iterdir())) == 1  # one process writes
    assert not [path for path in folder.rglob("*") if path.suffix in (".tmp", ".partial")]


@pytest.mark.usefixtures("two")
def test_where_the_first_process_fails_the_others_stop_and_all_leave_the_group(folder: Path) -> None:
    """Before Python ends: a thread of the group outlived it now and then, and the process was aborted."""
    told = [(folder / f"error-{rank}.txt").read_text().partition("; ") for rank in range(2)]
    assert [left for *_, left in told] == ["group left: True"] * 2
    assert told[0][0].startswith("ZeroDivisionError")
    assert told[1][0] == "RecoError: process 1 stops because the first one failed"


@pytest.mark.usefixtures("from_nothing")  # as a user's: here the launcher and each process import what they need
def test_torchrun_starts_the_command_line(
    pairs: Records, vit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pairs(tmp_path / "pairs.npz", [pairs])
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    options = ["--fuser", "paper", "--precision", "bf16", "--steps", "4", "--batch", "8", "--k", "3", "--out", "run"]
    command = [*launcher, "-m", "reco_plugin", "train", "pairs.npz?check=0", "--model", vit, *options]
    done = run_on_a_terminal(command, cwd=tmp_path, env=ENVIRONMENT, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("wrote run/fusion.pt") == 1
    assert done.stderr.count("find neighbours:   0%") == 1, "one process retrieves"
    trained = load_fusions(tmp_path / "run" / FUSION)
    assert trained.config.dimension == D and not (tmp_path / "run" / CHECKPOINT).exists()  # of 100 steps
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.npz").unlink()  # one process goes on with what the first of two encoded and retrieved
    again = train(
        Recipe(source="pairs.npz?check=0", model=vit, fuser="paper", precision="bf16", steps=4, batch=8, k=3),
        Path("run"),
    )
    assert not same(again.state_dict(), trained.state_dict())  # other masks


KILLED = """
import sys
from pathlib import Path
import torch
from distributed_worker import D
from reco_plugin.train.data import open_data
from reco_plugin.train.loop import TrainConfig, train_fusions
from reco_plugin.train.model import FusionConfig
torch.set_num_threads(1)
config = TrainConfig(steps=150, batch=32, checkpoint_every=7)
train_fusions(open_data(Path(sys.argv[1])), FusionConfig("paper", D), Path(sys.argv[2]), config)
"""


def test_a_run_that_is_killed_twice_ends_as_one_that_was_not(folder: Path, data: FusionData, tmp_path: Path) -> None:
    config = TrainConfig(steps=150, batch=32, checkpoint_every=7)
    whole = train_fusions(data, FusionConfig("paper", D), tmp_path / "whole", config).state_dict()
    command = [sys.executable, "-c", KILLED, str(folder / "training"), str(tmp_path / "cut")]
    reached: list[int] = []
    for _ in range(2):
        process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.DEVNULL)
        wait_for_a_checkpoint(tmp_path / "cut" / CHECKPOINT, reached[-1] if reached else 0)
        time.sleep(random.uniform(0, 0.2))
        process.kill()
        assert process.wait() == -9, "it was done before it could be killed"
        reached.append(torch.load(tmp_path / "cut" / CHECKPOINT)["step"])
    assert 0 < reached[0] < reached[1] < 150
    again = train_fusions(data, FusionConfig("paper", D), tmp_path / "cut", config).state_dict()
    assert same(again, whole) and same(load_fusions(tmp_path / "cut" / FUSION).state_dict(), whole)


def wait_for_a_checkpoint(path: Path, beyond: int) -> None:
    """Until the run has gone further than this step."""
    until = time.monotonic() + 60
    while not path.exists() or torch.load(path)["step"] <= beyond:
        assert time.monotonic() < until, "it does not get on"
        time.sleep(0.02)


class Member(Processes):
    """One of several, not joined: enough to draw."""

    def __init__(self, rank: int, count: int) -> None:
        super().__init__()
        self.rank, self.count = rank, count


def batches(data: FusionData, processes: Processes, size: int = 12) -> Batches:
    return Batches(data, size, seed=3, drop=0.3, rotate=0.5, processes=processes)


def test_the_processes_rows_are_the_batch_in_order(data: FusionData) -> None:
    for step in range(4):  # turned or not
        whole = batches(data, Processes()).draw(step)
        parts = [batches(data, Member(rank, 3)).draw(step) for rank in range(3)]
        for side in MODALITIES:
            for name in ("query", "neighbours", "similarity", "trust"):
                joined = torch.cat([getattr(part.own[side], name) for part in parts])
                torch.testing.assert_close(joined, getattr(whole.own[side], name), rtol=0, atol=1e-6)
            for part in parts:
                torch.testing.assert_close(part.frozen[side], whole.frozen[side], rtol=0, atol=1e-6)


def test_a_batch_is_of_distinct_groups_with_what_each_pair_found(data: FusionData) -> None:
    drawn = Batches(data, 2 * GROUPS, seed=0, drop=0.0, rotate=0.0, processes=Processes()).draw(0)
    rows = (drawn.frozen["image"] @ torch.from_numpy(np.array(data.pairs.image)).T).argmax(1).numpy()
    assert sorted(data.groups[rows]) == list(range(GROUPS))  # all, since there are fewer than a batch takes
    found = data.neighbours["text"]
    np.testing.assert_array_equal(drawn.own["text"].neighbours, found.vectors[rows])
    np.testing.assert_array_equal(drawn.own["text"].similarity, found.similarity[rows])
    assert (drawn.own["text"].trust == 1).all()
    seen = {tuple(batches(data, Processes()).draw(step).frozen["text"][:, 0].tolist()) for step in range(5)}
    assert len(seen) == 5


def test_each_process_has_a_group(data: FusionData) -> None:
    with pytest.raises(DataError, match="40 groups are too few for 64 processes"):
        batches(data, Member(0, 64), size=128)


def test_bf16_trains_near_fp32_and_keeps_its_weights_in_fp32(data: FusionData, tmp_path: Path) -> None:
    config = FusionConfig("paper", D)
    steps = {"steps": 8, "batch": 16, "checkpoint_every": 4}
    full = train_fusions(data, config, tmp_path / "fp32", TrainConfig(**steps)).state_dict()  # type: ignore[arg-type]
    half = train_fusions(data, config, tmp_path / "bf16", TrainConfig(**steps, precision="bf16")).state_dict()  # type: ignore[arg-type]
    assert not same(full, half)
    for name, weight in half.items():
        assert weight.dtype == torch.float32
        torch.testing.assert_close(weight, full[name], rtol=0, atol=8e-3)  # a step moves a weight by 1e-3 at most
    with pytest.raises(ConfigError, match="another configuration"):
        train_fusions(data, config, tmp_path / "bf16", TrainConfig(**steps))  # type: ignore[arg-type]


def test_processes_that_cannot_be_had_are_refused(tmp_path: Path) -> None:
    assert type(start("cpu", 1, batch=12)) is Processes  # alone: nothing is started
    with pytest.raises(ConfigError, match="--device cuda, not cuda:1"):
        start("cuda:1", 2, batch=12)
    with pytest.raises(ConfigError, match=r"4096 processes .* 'cuda', of which this machine has \d+: give fewer"):
        start("cuda", 4096, batch=4096)
    with pytest.raises(ConfigError, match=r"device 'vulkan' .*: leave --device out to train on the CPU") as caught:
        start("vulkan", 1, batch=12)
    assert len(str(caught.value)) < 300, "torch lists all of its backends"
    with pytest.raises(ConfigError, match="5 processes cannot share a batch of 12: give a multiple, --batch"):
        start("cpu", 5, batch=12)
    with pytest.raises(ConfigError, match=r"the fusion 'reco' needs no training.*--fuser paper"):
        begin(Recipe.of(source="pairs.npz", model="mini", fuser="reco"), tmp_path, 2)
