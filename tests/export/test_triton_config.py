"""``config.pbtxt``, read by Triton's own schema."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from reco_plugin.encoders.preprocess import ImageConfig, TextConfig
from reco_plugin.export.export_options import ENGINE_CACHE, Serving
from reco_plugin.export.folder import GraphSpec, graph_specs, render_config

pytestmark = pytest.mark.slow

IMAGE = ImageConfig((224, 224))
TEXT = TextConfig("clip", 77, "lower", pad_id=0, end_id=49407, dynamic=True)
SPECS = graph_specs(IMAGE, TEXT, 512, neighbours=10)


def parsed(spec: GraphSpec, how: Serving | None = None, *, half: bool = False) -> Any:
    return text_format.Parse(render_config(spec, how, half=half), model_config_pb2.ModelConfig())


def gpu(config: Any) -> dict[str, dict[str, str]]:
    blocks = config.optimization.execution_accelerators.gpu_execution_accelerator
    return {block.name: dict(block.parameters) for block in blocks}


@pytest.mark.parametrize("name", ["clip_text", "paper_image"])
def test_what_every_configuration_says(name: str) -> None:
    config = parsed(SPECS[name], Serving(accelerator="tensorrt"))
    assert (config.backend, config.max_batch_size) == ("onnxruntime", 64)
    assert [(group.kind, group.count) for group in config.instance_group] == [
        (model_config_pb2.ModelInstanceGroup.KIND_AUTO, 1)
    ]
    assert config.HasField("dynamic_batching")
    assert config.dynamic_batching.default_queue_policy.max_queue_size == 512
    assert len(config.input) == len(SPECS[name].inputs) and len(config.output) == len(SPECS[name].outputs)
    assert not config.optimization.HasField("graph")  # any level that can be named optimises less than none
    ports = {port.name: port for port in config.input}
    for warm in config.model_warmup:
        assert set(warm.inputs) == set(ports) and 1 <= warm.batch_size <= config.max_batch_size
        for key, value in warm.inputs.items():
            assert value.data_type == ports[key].data_type and len(value.dims) == len(ports[key].dims)
            for size, told in zip(value.dims, ports[key].dims, strict=True):
                assert size == told or (told == -1 and size in SPECS[name].lengths)
    assert len({warm.name for warm in config.model_warmup}) == len(config.model_warmup)


def test_without_an_accelerator_nothing_waits() -> None:
    batching = parsed(SPECS["clip_text"]).dynamic_batching
    assert batching.max_queue_delay_microseconds == 0 and not batching.preferred_batch_size
    assert not parsed(SPECS["clip_text"]).HasField("optimization")


def test_gpus_wait_for_preferred_batches_and_are_warm_for_them() -> None:
    config = parsed(SPECS["clip_text"], Serving(accelerator="cuda", max_batch=32))
    assert list(config.dynamic_batching.preferred_batch_size) == [8, 32]
    assert config.dynamic_batching.max_queue_delay_microseconds == 1000
    warmed = {(warm.batch_size, warm.inputs["tokens"].dims[0]) for warm in config.model_warmup}
    assert warmed == {(1, length) for length in (16, 32, 48, 64, 77)} | {(8, 77), (32, 77)}


def test_tensorrt_has_one_profile_for_all_batches_and_lengths() -> None:
    how = Serving(accelerator="tensorrt", max_batch=48)
    found = gpu(parsed(SPECS["clip_text"], how, half=True))
    assert list(found) == ["tensorrt", "cuda"]  # CUDA takes what TensorRT does not
    engine = found["tensorrt"]
    assert engine["precision_mode"] == "FP16"
    assert (engine["trt_engine_cache_enable"], engine["trt_engine_cache_path"]) == ("1", ENGINE_CACHE)
    assert [engine[f"trt_profile_{which}_shapes"] for which in ("min", "opt", "max")] == [
        "tokens:1x16",
        "tokens:12x48",
        "tokens:48x77",
    ]
    image = gpu(parsed(SPECS["clip_image"], how))["tensorrt"]
    assert image["precision_mode"] == "FP32" and image["trt_profile_max_shapes"] == "pixels:48x224x224x3"
    fixed = graph_specs(IMAGE, TextConfig("hf", 64, "canonicalize", pad_id=1), 512, 10)["clip_text"]
    assert gpu(parsed(fixed, how))["tensorrt"]["trt_profile_min_shapes"] == "tokens:1x64"


def test_fusions_are_left_to_cuda_in_float32() -> None:
    for how in (Serving(accelerator="tensorrt"), Serving(accelerator="cuda")):
        found = gpu(parsed(SPECS["paper_image"], how, half=True))
        assert list(found) == ["cuda"] and found["cuda"]["use_tf32"] == "0"
        assert "use_tf32" not in gpu(parsed(SPECS["clip_image"], how, half=True))["cuda"]
        assert gpu(parsed(SPECS["clip_image"], how))["cuda"]["use_tf32"] == "0"
