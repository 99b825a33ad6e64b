"""Options of ``reco model add``. Loads nothing heavy."""

from __future__ import annotations

from pathlib import Path

from ..run_config import option
from ..train.parity import Precision
from ..train.recipe import ManifestOptions


class AddOptions(ManifestOptions):
    """What is imported, beside the source; each of the files is taken from the source where it is not given."""

    image: Path | None = option(None, "ONNX graph of the image tower.", unset="of SOURCE")
    text: Path | None = option(None, "ONNX graph of the text tower.", unset="of SOURCE")
    tokenizer: Path | None = option(None, "tokenizer.json of the text tower.", unset="of SOURCE")
    preprocess: Path | None = option(
        None, "preprocessor_config.json, or preprocess_cfg.json of open_clip.", unset="of SOURCE"
    )
    precision: Precision = option(
        "fp32", "Precision of the graphs: a file of that precision in SOURCE, else made of the float32 one."
    )
    context_length: int | None = option(None, "Most tokens of a text.", ge=1, unset="as the files say")
    pad_token: str | None = option(None, "Token that fills a text up to its length.", unset="as the files say")
    lower: bool | None = option(None, "Whether texts are lower-cased first.", unset="as the files say")
    image_output: str | None = option(None, "Output of the image graph that is the vector.", unset="told by its name")
    text_output: str | None = option(None, "Output of the text graph that is the vector.", unset="told by its name")
    name: str | None = option(None, "Name of the encoder in the manifest.", unset="of SOURCE")
    revision: str | None = option(None, "Branch, tag or commit of a hub repository.", unset="its main branch")
