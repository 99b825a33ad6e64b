"""clip_benchmark's own evaluation, run through our adapter, says what ``reco eval`` says of the same data."""

from __future__ import annotations

import gc
import json
import pickle
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lean_start import ENVIRONMENT
from PIL import Image

from reco_plugin import Pair, Reco
from reco_plugin.adapters.clip_benchmark import BenchmarkModel, Texts, load, main, register, transform
from reco_plugin.data import Labelled, read_labelled, read_retrieval
from reco_plugin.errors import ConfigError, MemoryStoreError, MissingExtra
from reco_plugin.evaluate import retrieval, zero_shot
from reco_plugin.evaluate.encoding import prompt_vectors
from reco_plugin.preprocess import ImageConfig, images_to_array
from reco_plugin.train.export import sample_images
from reco_plugin.types import MODALITIES

POINT = 0.001
"""A tenth of a point, as a share."""
Metrics = dict[str, dict[str, float]]


def command(dataset: str, pretrained: list[str], *options: str) -> list[str]:
    """What follows the name of the program."""
    where = ["--model", "model", "--dataset", f"wds/{dataset}", "--dataset_root", dataset, "--pretrained", *pretrained]
    return ["eval", "--model_type", "reco", *where, *options]


def written(folder: Path, dataset: str) -> Metrics:
    """``--pretrained`` -> metrics of the file that the command wrote."""
    found = [json.loads(path.read_text()) for path in folder.glob(f"{dataset}_*.json")]
    assert {(result["model"], result["dataset"]) for result in found} == {("model", f"wds/{dataset}")}
    return {result["pretrained"]: result["metrics"] for result in found}


def zero_shot_of(metrics: Metrics, pretrained: str) -> tuple[float, float]:
    return metrics[pretrained]["acc1"], metrics[pretrained]["acc5"]


def run_here(folder: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["clip_benchmark", *arguments])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # webdataset leaves files open
        main()
        gc.collect()  # closes them, and the memory


@pytest.mark.filterwarnings("ignore:WebDataset:UserWarning")  # of clip_benchmark, which does not say what it wants
@pytest.mark.filterwarnings("ignore:Precision is ill-defined:UserWarning")  # its report, of unpredicted classes
def test_classification_agrees(bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sides = {"frozen": "frozen", "memory": "image", "text@memory": "text", "both@memory": "both"}
    options = command("labelled", list(sides), "--batch_size", "50")
    if bench.name.startswith("drawn"):  # in a process of its own, as of a user
        program = [sys.executable, "-m", "reco_plugin.adapters.clip_benchmark", *options, "--num_workers", "2"]
        done = subprocess.run(program, cwd=bench, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    else:
        run_here(bench, [*options, "--num_workers", "0"], monkeypatch)
    theirs = written(bench, "labelled")
    with Reco.open(bench / "model", memory=bench / "memory") as reco:
        ours = zero_shot(reco, read_labelled(bench / "labelled" / "test"))
    assert theirs.keys() == sides.keys()
    for pretrained, side in sides.items():
        assert theirs[pretrained]["acc1"] == pytest.approx(ours[side].top1.mean, abs=POINT), side
        assert theirs[pretrained]["acc5"] == pytest.approx(ours[side].top5, abs=POINT), side
    refined = [zero_shot_of(theirs, pretrained) for pretrained in ("memory", "text@memory", "both@memory")]
    assert any(shares != zero_shot_of(theirs, "frozen") for shares in refined)  # refinement did something


@pytest.mark.filterwarnings("ignore:WebDataset:UserWarning")  # of clip_benchmark, which does not say what it wants
def test_retrieval_agrees_where_the_query_is_refined_and_the_index_is_not(
    bench: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--task", "zeroshot_retrieval", "--recall_k", "1", "5", "--num_workers", "0")
    run_here(bench, command("captioned", ["frozen", "image@memory", "text@memory"], *options), monkeypatch)
    theirs = written(bench, "captioned")
    with Reco.open(bench / "model", memory=bench / "memory") as reco:
        ours = retrieval(reco, read_retrieval(bench / "captioned" / "test"))
    for direction, metric, refining in (
        ("text->image", "image_retrieval_recall", "text@memory"),
        ("image->text", "text_retrieval_recall", "image@memory"),
    ):
        for pretrained, refined in (("frozen", "frozen"), (refining, "query")):
            for k in (1, 5):
                expected = ours[direction, refined].recall[k]
                assert theirs[pretrained][f"{metric}@{k}"] == pytest.approx(expected, abs=POINT), (direction, refined)
        assert any(theirs[refining][f"{metric}@{k}"] != theirs["frozen"][f"{metric}@{k}"] for k in (1, 5)), refining


# --- the parts ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def opened(model: Path, drawings: list[Pair]) -> Iterator[Reco]:
    with Reco.open(model, memory=":memory:") as reco:
        reco.memory.add(drawings)
        yield reco


@pytest.mark.parametrize("refined", [False, True])
def test_an_image_becomes_the_vector_that_it_becomes_without_clip_benchmark(opened: Reco, refined: bool) -> None:
    images: Any = [image.convert(mode) for image, mode in zip(sample_images(4), ("RGB", "L", "P", "RGBA"), strict=True)]
    prepared = [transform(i, config=opened.manifest.image, max_pixels=opened.settings.max_pixels) for i in images]
    vectors = BenchmarkModel(opened, ("image",) if refined else ()).encode_image(torch.stack(prepared))
    np.testing.assert_array_equal(vectors.numpy(), opened.embed_images(images, refine=refined))


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_preprocessing_leaves_what_it_made_as_it_is(size: tuple[int, int], mode: Any) -> None:
    """The adapter leans on it: images are prepared in loader processes and come back as pixels."""
    config = ImageConfig(size, interpolation="bilinear", resize_mode=mode, fill_color=9)
    once = images_to_array(sample_images(3), config)
    np.testing.assert_array_equal(images_to_array([Image.fromarray(array) for array in once], config), once)


def test_the_transform_can_be_handed_to_another_process(model: Path) -> None:
    ours = load(str(model), "frozen")[1]
    image: Any = sample_images(1)[0]
    assert torch.equal(pickle.loads(pickle.dumps(ours))(image), ours(image))


@pytest.mark.parametrize("refined", [(), ("image",), ("text",)], ids=str)
def test_classes_are_one_set_of_candidates(opened: Reco, refined: Any) -> None:
    from clip_benchmark.metrics import zeroshot_classification

    register()
    names, templates = ["red circle", "blue square", "green triangle"], ["a small {c}", "{c}"]
    model = BenchmarkModel(opened, refined)
    found = zeroshot_classification.zero_shot_classifier(model, Texts, names, templates, "cpu", amp=False)
    expected = prompt_vectors(opened, Labelled("three", [], np.array([]), tuple(names), tuple(templates)))
    if "text" in refined:
        expected = opened.refine(expected, modality="text", role="candidate").vectors
    np.testing.assert_allclose(found.T.numpy(), expected, atol=1e-6)


def test_with_both_sides_refined_the_logits_are_exact_scores(
    opened: Reco, drawings: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    from clip_benchmark.metrics import zeroshot_classification

    register()
    names, templates = ["red circle", "blue square", "the theory of numbers"], ["a small {c}", "{c}"]
    images: Any = [pair.image for pair in drawings[:6]]
    pixels = [transform(i, config=opened.manifest.image, max_pixels=opened.settings.max_pixels) for i in images]
    state = opened.memory.calibration
    assert state is not None
    sides = {name: replace(side, candidate_gates=side.gates) for name, side in state.sides.items()}
    monkeypatch.setattr(opened.memory, "_learned", (opened.memory.searches.header, replace(state, sides=sides)))
    monkeypatch.setattr(opened._refiner.memory, "_known", None)  # of the same header
    model = BenchmarkModel(opened, MODALITIES)
    classifier = zeroshot_classification.zero_shot_classifier(model, Texts, names, templates, "cpu", amp=False)
    batches = [(torch.stack(pixels[:4]), torch.zeros(4)), (torch.stack(pixels[4:]), torch.zeros(2))]
    logits, _ = zeroshot_classification.run_classification(model, classifier, batches, "cpu", amp=False)
    prompts = prompt_vectors(opened, Labelled("three", [], np.array([]), tuple(names), tuple(templates)))
    found = opened.scores(opened.embed_images(images, refine=False), prompts)
    assert not np.allclose(found.scores, found.frozen, atol=1e-3)
    np.testing.assert_allclose(logits.numpy() / 100, found.scores, atol=1e-4)


def test_a_retrieval_with_both_sides_refined_is_refused(opened: Reco) -> None:
    with pytest.raises(ConfigError, match="reco eval retrieval"):
        BenchmarkModel(opened, MODALITIES).encode_text(Texts(["a red circle"]))


def test_registering_twice_wraps_once_and_leaves_other_models_alone() -> None:
    from clip_benchmark import models
    from clip_benchmark.metrics import zeroshot_classification

    register()
    before = zeroshot_classification.zero_shot_classifier
    register()
    assert zeroshot_classification.zero_shot_classifier is before
    assert models.MODEL_TYPES.count("reco") == 1

    class Lengths:
        """A model whose text vectors are (letters, 1)."""

        def encode_text(self, texts: Texts) -> torch.Tensor:
            return torch.tensor([[float(len(text)), 1.0] for text in texts])

    found = before(Lengths(), Texts, ["abc"], ["{c}"], "cpu", amp=False)
    torch.testing.assert_close(found, torch.tensor([[3.0], [1.0]]) / 10**0.5)


def test_models_of_one_memory_can_follow_one_another(model: Path, drawings: list[Pair], tmp_path: Path) -> None:
    """A memory is open once at a time, and clip_benchmark closes nothing."""
    memory = tmp_path / "memory"
    with Reco.open(model, memory=memory) as reco:
        reco.memory.add(drawings)
    for side in ("image", "text", "both"):
        ours = load(str(model), f"{side}@{memory}", cache_dir=None, device="cpu")[0]
        opened = ours.reco  # which would keep it open
        assert len(opened.memory) == len(drawings)
        del ours
        gc.collect()


def test_a_memory_that_is_not_there_or_empty_is_an_error(model: Path, tmp_path: Path) -> None:
    with pytest.raises(MemoryStoreError, match=r"text@.*there is no memory at"):
        load(str(model), f"text@{tmp_path / 'mistyped'}")
    assert list(tmp_path.iterdir()) == []
    with Reco.open(model, memory=tmp_path / "empty"):
        pass
    with pytest.raises(MemoryStoreError, match="memory is empty"):
        load(str(model), str(tmp_path / "empty"))


def test_a_name_of_the_output_that_cannot_be_written_is_found_before_the_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for arguments in (
        ["--model", "a/model", "--pretrained", "memory"],
        ["--model", "model", "--pretrained", "./memory"],
    ):
        monkeypatch.setattr(sys, "argv", ["clip_benchmark", "eval", "--model_type", "reco", *arguments])
        with pytest.raises(SystemExit, match=r"error: --output .* would hold a path"):
            main()


def test_without_clip_benchmark_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "clip_benchmark", None)
    with pytest.raises(MissingExtra, match=r"pip install 'reco-plugin\[clip-benchmark\]'"):
        register()
