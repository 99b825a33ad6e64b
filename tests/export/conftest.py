"""Small encoders with random weights, as open_clip reads them from a folder."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from small_clip import VIT

WriteEncoder = Callable[..., str]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Two test processes share two cores. Tests that need no torch do without."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def vit_config() -> dict[str, Any]:
    """A CLIP of two small towers; 40-dimensional."""
    return copy.deepcopy(VIT)


@pytest.fixture(scope="session")
def write_encoder() -> WriteEncoder:
    """A function that writes a model folder for open_clip and returns its name."""
    import torch
    from open_clip import CLIP, CustomTextCLIP
    from safetensors.torch import save_file

    from benchmarks.pretrain.towers import write_tokenizer

    def write(
        folder: Path,
        config: dict[str, Any],
        seed: int = 0,
        weights: bool = True,
        preprocess: dict[str, Any] | None = None,
    ) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        bpe = folder / "bpe.txt.gz"
        write_tokenizer(bpe)
        config = copy.deepcopy(config)
        torch.manual_seed(seed)
        arguments = copy.deepcopy(config)
        model = (CustomTextCLIP if arguments.pop("custom_text", False) else CLIP)(**arguments)
        with torch.no_grad():  # open_clip starts biases and norms at 0 and 1, which would hide a mistake
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        if weights:
            save_file(
                {k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors"
            )
        config["text_cfg"]["tokenizer_kwargs"] = {"bpe_path": str(bpe)} | config["text_cfg"].get("tokenizer_kwargs", {})
        content = {"model_cfg": config, "preprocess_cfg": preprocess or {}}
        (folder / "open_clip_config.json").write_text(json.dumps(content))
        return f"local-dir:{folder}"

    return write


@pytest.fixture(scope="session")
def vit(tmp_path_factory: pytest.TempPathFactory, write_encoder: WriteEncoder, vit_config: dict[str, Any]) -> str:
    """The name of a written :func:`vit_config` model."""
    return write_encoder(tmp_path_factory.mktemp("vit"), vit_config)


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """The folder of a family in a layout: transformers_js or optimum; each written once."""
    from families import FAMILIES

    @cache
    def write(family: str, layout: str) -> Path:
        folder = tmp_path_factory.mktemp("written") / f"{family}-{layout}"
        found: Path = getattr(FAMILIES[family], f"write_{layout}")(folder)
        return found

    return write
