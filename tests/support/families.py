"""Encoders of each family at a small size: the real architecture and tokenizer kind, with random weights.

A family is a row of :data:`FAMILIES`; the tests of towers go through its rows. Checkpoints
are written by transformers itself, graphs by torch's exporter with the names of ports that the makers document.
"""

from __future__ import annotations

import gzip
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from open_clip.tokenizer import bytes_to_unicode, default_bpe
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn

from reco_plugin.export.parity import sample_texts

_SIDE, _PATCH, _DIMENSION, _LENGTH = 32, 16, 24, 77
_TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
_VISION = _TEXT | {"image_size": _SIDE, "patch_size": _PATCH}
_CORPUS = [*sample_texts(), "一只猫坐在垫子上", "红色的狐狸", "Ένα κόκκινο αλεπού", "naïve façade"]


@dataclass(frozen=True)
class Family:
    """A family of encoders, as a small one of it is made."""

    name: str
    model: Callable[[], Any]  # of transformers, random weights
    tokenizer: Callable[[], Any]
    processor: Callable[[], Any]  # of images
    embeds: str = "embeds"  # end of the outputs' names in published graphs
    masked: bool = False  # whether published text graphs take an attention mask

    def write_transformers_js(self, folder: Path) -> Path:
        """Two graphs in ``onnx/``, beside the checkpoint's files without weights."""
        model, tokenizer = self.build()
        (folder / "onnx").mkdir(parents=True)
        self._write_beside(folder, model, tokenizer)
        pixels, ids, mask = self.example(tokenizer)
        image, text = f"image_{self.embeds}", f"text_{self.embeds}"
        if self.embeds == "pooler_output":
            image = text = self.embeds
        vision = partial(_image, model)
        to_onnx(model, vision, {"pixel_values": pixels}, [image], folder / "onnx" / "vision_model.onnx")
        inputs = {"input_ids": ids} | ({"attention_mask": mask} if self.masked else {})
        to_onnx(model, partial(_text, model), inputs, [text], folder / "onnx" / "text_model.onnx")
        return folder

    def write_optimum(self, folder: Path) -> Path:
        """Both towers in one graph, with the inputs and outputs of optimum."""
        model, tokenizer = self.build()
        folder.mkdir(parents=True)
        self._write_beside(folder, model, tokenizer)
        pixels, ids, mask = self.example(tokenizer)
        outputs = ["logits_per_image", "logits_per_text", "text_embeds", "image_embeds"]
        inputs = {"input_ids": ids, "pixel_values": pixels, "attention_mask": mask}

        def both(ids: Tensor, pixels: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
            sides = (_image(model, pixels), _text(model, ids, mask))
            image, text = (one / one.norm(dim=-1, keepdim=True) for one in sides)
            return image @ text.T, text @ image.T, text, image

        to_onnx(model, both, inputs, outputs, folder / "model.onnx")
        return folder

    def _write_beside(self, folder: Path, model: Any, tokenizer: Any) -> None:
        model.config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        self.processor().save_pretrained(folder)

    def build(self) -> tuple[Any, Any]:
        """The model and its tokenizer; the same weights every time."""
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            model = self.model().eval().requires_grad_(False)
            for parameter in model.parameters():  # biases and norms start at 0 and 1, which would hide a mistake
                parameter.add_(0.05 * torch.randn_like(parameter))
            return model, self.tokenizer()

    def example(self, tokenizer: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels, ids and mask for the exporter."""
        given = tokenizer(["a red fox", "東京"], padding="max_length", max_length=16, return_tensors="pt")
        mask = given.get("attention_mask", torch.ones_like(given["input_ids"]))
        return torch.rand(2, 3, _SIDE, _SIDE), given["input_ids"], mask


def vector(found: Any) -> Tensor:
    """The vectors in what transformers returns."""
    return found if isinstance(found, Tensor) else found.pooler_output


def _image(model: Any, pixels: Tensor) -> Tensor:
    return vector(model.get_image_features(pixel_values=pixels))


def _text(model: Any, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    return vector(model.get_text_features(input_ids=ids, attention_mask=mask))


class _Part(nn.Module):
    """A part of a model as a graph's inputs ask it."""

    def __init__(self, model: nn.Module, ask: Callable[..., Any]) -> None:
        super().__init__()
        self.model, self._ask = model, ask

    def forward(self, *given: Tensor) -> Any:
        return self._ask(*given)


def to_onnx(
    model: Any, ask: Callable[..., Any], inputs: dict[str, Tensor], outputs: list[str], path: Path, batch: bool = True
) -> None:
    """Write a graph as published ones are: by the tracing exporter, with a free batch and length unless told not to.

    Args:
        model: whose weights the graph has.
        ask: makes the outputs of the inputs, by the model.
        inputs: by the names of their ports.
        outputs: names of their ports.
        path: of the file.
        batch: whether batch and length are free.
    """
    free = {name: {0: "batch"} | ({1: "length"} if value.ndim == 2 else {}) for name, value in inputs.items()}
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # ONNX has no such operator
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Part(model, ask).eval(),
            tuple(inputs.values()),
            str(path),
            input_names=list(inputs),
            output_names=outputs,
            dynamic_axes=free | {name: {0: "batch"} for name in outputs} if batch else None,
            opset_version=17,
            dynamo=False,
        )
    torch.backends.mha.set_fastpath_enabled(fast)


def byte_pairs(count: int) -> tuple[dict[str, int], list[str]]:
    """CLIP's vocabulary, which open_clip carries, with its first so many merges, and these, a line each."""
    lines = gzip.decompress(Path(default_bpe()).read_bytes()).decode("utf-8").split("\n")[1 : 1 + count]
    letters, whole = list(bytes_to_unicode().values()), ["".join(line.split()) for line in lines]
    tokens = [*letters, *(f"{one}</w>" for one in letters), *whole, "<|startoftext|>", "<|endoftext|>"]
    return {token: index for index, token in enumerate(tokens)}, lines


def clip_tokenizer(count: int = 3582) -> Any:
    """CLIP's byte-pair tokenizer with its first so many merges."""
    vocabulary, lines = byte_pairs(count)
    merges: Any = [tuple(line.split()) for line in lines]
    return transformers.CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=_LENGTH)


def _causal(tokenizer: Any) -> dict[str, Any]:
    """A causal text tower of these tokens, which reads the end of a text."""
    return _TEXT | {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": _LENGTH,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def clip_model() -> Any:
    """CLIP: causal text tower, the end token is pooled."""
    config = transformers.CLIPConfig(
        text_config=_causal(clip_tokenizer()), vision_config=_VISION, projection_dim=_DIMENSION
    )
    return transformers.CLIPModel(config)


def clip_processor() -> Any:
    """CLIP's: the shortest side, then the middle."""
    return transformers.CLIPImageProcessor(size={"shortest_edge": _SIDE}, crop_size={"height": _SIDE, "width": _SIDE})


def siglip_tokenizer() -> Any:
    """SigLIP's: pieces of words in lower case without punctuation, filled with the end of a text, and no mask."""
    backend = tokenizers.Tokenizer(models.Unigram(_pieces(), 3))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.add_special_tokens(["<pad>", "</s>", "<unk>"])
    bare = normalizers.Replace(tokenizers.Regex(r"[!-/:-@\[-`{-~]"), "")
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), bare, normalizers.Strip()])
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    make: Any = transformers.PreTrainedTokenizerFast
    return make(
        tokenizer_object=backend,
        eos_token="</s>",
        pad_token="</s>",
        unk_token="<unk>",
        model_max_length=16,
        model_input_names=["input_ids"],
    )


@cache
def _pieces() -> list[tuple[str, float]]:
    """Pieces of words, learned once: the trainer takes another order of them each time."""
    backend = tokenizers.Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=special, unk_token="<unk>", show_progress=False)
    backend.train_from_iterator([*_CORPUS, *map(str.lower, _CORPUS)], trainer)
    return [(piece, score) for piece, score in json.loads(backend.to_str())["model"]["vocab"]]


def gemma_tokenizer() -> Any:
    """SigLIP2's: Gemma's byte pairs with bytes for what it does not know, in lower case, filled to one length."""
    backend = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    backend.normalizer = normalizers.Replace(" ", "▁")
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special, show_progress=False)
    backend.train_from_iterator(map(str.lower, _CORPUS), trainer)
    model = json.loads(backend.to_str())["model"]
    merges: Any = [tuple(one) for one in model["merges"]]
    found: Any = transformers.Siglip2Tokenizer(
        vocab=model["vocab"],
        merges=merges,
        model_max_length=16,
        padding_side="right",
        model_input_names=["input_ids"],
    )
    found.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", model["vocab"]["<eos>"])]
    )
    return found


def siglip_model(tokens: Callable[[], Any]) -> Callable[[], Any]:
    """SigLIP: a text tower without a mask, which reads its padding, and pictures pooled by attention."""

    def make() -> Any:
        text = _TEXT | {"vocab_size": len(tokens()), "max_position_embeddings": 16, "projection_size": 32}
        return transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=_VISION))

    return make


def siglip_processor() -> Any:
    """SigLIP's: squashed."""
    return transformers.SiglipImageProcessor(size={"height": _SIDE, "width": _SIDE})


def siglip2_processor() -> Any:
    """SigLIP2's of a fixed size: squashed, bilinear."""
    return transformers.SiglipImageProcessor(size={"height": _SIDE, "width": _SIDE}, resample=2)


def bert_tokenizer() -> Any:
    """Chinese-CLIP's: BERT's, with a mask."""
    letters = sorted({letter for text in _CORPUS for letter in text.lower() if not letter.isspace()})
    words = sorted({word for text in _CORPUS for word in text.lower().split() if word.isalpha()})[:200]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{one}" for one in letters), *words]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return transformers.BertTokenizer(vocab=vocabulary, model_max_length=52)


def chinese_clip_model() -> Any:
    """Chinese-CLIP: BERT as the text tower."""
    text = _TEXT | {"vocab_size": len(bert_tokenizer()), "max_position_embeddings": 64}
    config = transformers.ChineseCLIPConfig(text_config=text, vision_config=_VISION, projection_dim=_DIMENSION)
    return transformers.ChineseCLIPModel(config)


def chinese_clip_processor() -> Any:
    """Chinese-CLIP's: squashed."""
    return transformers.ChineseCLIPImageProcessor(size={"height": _SIDE, "width": _SIDE}, do_center_crop=False)


def xlm_tokenizer() -> Any:
    """MetaCLIP 2's: XLM's pieces of words, with a mask."""
    pieces: Any = _pieces()
    return transformers.XLMRobertaTokenizer(vocab=pieces, model_max_length=_LENGTH)


def metaclip2_model() -> Any:
    """MetaCLIP 2: CLIP's causal tower over XLM's tokens."""
    config = transformers.MetaClip2Config(
        text_config=_causal(xlm_tokenizer()), vision_config=_VISION, projection_dim=_DIMENSION
    )
    return transformers.MetaClip2Model(config)


FAMILIES = {
    family.name: family
    for family in (
        Family("CLIP", clip_model, clip_tokenizer, clip_processor),
        Family(
            "SigLIP",
            siglip_model(siglip_tokenizer),
            siglip_tokenizer,
            siglip_processor,
            "pooler_output",
        ),
        Family(
            "SigLIP2",
            siglip_model(gemma_tokenizer),
            gemma_tokenizer,
            siglip2_processor,
            "pooler_output",
        ),
        Family(
            "Chinese-CLIP",
            chinese_clip_model,
            bert_tokenizer,
            chinese_clip_processor,
            masked=True,
        ),
        Family(
            "MetaCLIP 2",
            metaclip2_model,
            xlm_tokenizer,
            clip_processor,
            masked=True,
        ),
    )
}
