"""A sentence encoder as a locked text tower: mean of the tokens' vectors, unit-norm, as in sentence-transformers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from reco_plugin.errors import DataError, InputError, MissingExtra
from reco_plugin.progress import progress_bar
from reco_plugin.types import Vectors

_WEIGHTS = "model.safetensors"
_MAX_TOKENS = 256  # all-MiniLM-L6-v2's sentence_bert_config.json


@dataclass(frozen=True)
class SentenceTower:
    """A frozen BERT-like encoder with its tokenizer.

    Attributes:
        model: a transformers model in evaluation mode, float32.
        tokenizer: its transformers tokenizer.
        digest: sha256 of the weights' file.
    """

    model: Any
    tokenizer: Any
    digest: str

    @property
    def dimension(self) -> int:
        """D."""
        return int(self.model.config.hidden_size)

    def texts(self, texts: Sequence[str], batch_size: int = 64) -> Vectors:
        """Encode texts; (N, D) unit-norm. Texts of similar length share a batch, and equal texts are encoded once.

        Raises:
            InputError: there is none.
        """
        if not len(texts):
            raise InputError("no texts to encode: the batch is empty")
        distinct = sorted(set(texts), key=lambda text: (len(text), text))
        row_of = {text: row for row, text in enumerate(distinct)}
        vectors = np.empty((len(distinct), self.dimension), np.float32)
        with torch.inference_mode(), progress_bar(total=len(distinct), desc="encode texts", unit="text") as bar:
            for start in range(0, len(distinct), batch_size):
                batch = distinct[start : start + batch_size]
                vectors[start : start + len(batch)] = self._encode(batch).numpy()
                bar.update(len(batch))
        return vectors[[row_of[text] for text in texts]]

    def _encode(self, texts: list[str]) -> Tensor:
        told = self.tokenizer(texts, padding=True, truncation=True, max_length=_MAX_TOKENS, return_tensors="pt")
        mask = told["attention_mask"][:, :, None].float()
        tokens: Tensor = self.model(**told).last_hidden_state
        return F.normalize((tokens * mask).sum(1) / mask.sum(1), dim=-1)


def load_sentences(folder: Path) -> SentenceTower:
    """Read a sentence encoder from a folder in Hugging Face's layout, such as all-MiniLM-L6-v2; nothing is downloaded.

    Raises:
        MissingExtra: transformers is not installed.
        DataError: the folder holds no such model.
    """
    try:
        from transformers import AutoModel, AutoTokenizer
    except ImportError:
        raise MissingExtra("transformers", "dev", "the locked text tower") from None
    if not (folder / _WEIGHTS).is_file():
        raise DataError(f"{folder} holds no {_WEIGHTS}: give the unpacked folder of a sentence encoder")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModel.from_pretrained(folder, local_files_only=True, attn_implementation="sdpa")
    except (OSError, ValueError) as error:
        raise DataError(f"transformers cannot read a sentence encoder in {folder}: {error}") from error
    with (folder / _WEIGHTS).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return SentenceTower(model.eval().float().requires_grad_(False), tokenizer, digest)
