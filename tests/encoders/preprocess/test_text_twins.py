"""Token ids are equal to open_clip's, whatever the text."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from reco_plugin.encoders.preprocess import TextConfig, Tokenizer
from reco_plugin.errors import ConfigError

pytest.importorskip("open_clip")
import torch
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer, default_bpe

from reco_plugin.export.open_clip import export_tokenizer

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("error")]

STORED = TypeAdapter(TextConfig)
"""Reads a config as the manifest does."""
TEXTS = [
    "",
    " ",
    " \t\r\n\u3000 ",
    "a photo of a cat",
    "  Many \t spaces\nand lines\r\n ",
    "DON'T, WE'RE, I'VE, I'M, HE'LL, SHE'D, IT'S 'S's''s",
    "don\u2019t it\u02bcs o'clock rock'n'roll 'tis",
    "12 345 3.14 1,000,000 \u00bd \u2167 \u0661\u0662\u0663 \u4e09 10\u2075 \u2460",
    "price: $9.99!!! (50% off) #sale @home a_b __init__ --- ... ??",
    "\u4e00\u53ea\u732b\u5728\u57a3\u5b50\u4e0a \u732b\u304c\u597d\u304d \uace0\uc591\uc774 \U00020000\U0002a6d6",
    "\u0642\u0637\u0629 \u0639\u0644\u0649 \u05d7\u05ea\u05d5\u05dc \u200f\u202babc\u202c",
    "\u0e41\u0e21\u0e27 \u092c\u093f\u0932\u094d\u0932\u0940",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466",
    "\U0001f3f3\ufe0f\u200d\U0001f308 \U0001f44d\U0001f3fd \u2764\ufe0f \U0001f1e9\U0001f1ea",
    "e\u0301 n\u0303 a\u0300\u0301\u0302",
    "\ufb01ne \ufb04 \ufb05 \ufb06 \u00df \u1e9e \u0130stanbul I\u0307 \u01c5 \u2126 \u212a \u212b \u03c2\u03a3",
    "sch\u00c3\u00b6n \u00e2\u20ac\u201d caf\u00c3\u00a9",
    "\u00e2\u20ac\u0153quoted\u00e2\u20ac\u009d \u00f0\u0178\u02dc\u00ba",
    "&lt;b&gt; &amp;amp;amp; &eacute; &#233; &#x1F600; &amp;lt;end_of_text&amp;gt; &nbsp; &notanentity; &#xD800; &#0;",
    "a\x00b\x07c\x1b[31m\x7f\x85d\x1c\x1de\ufeff",
    "zero\u200bwidth\u200cjoin\u200der\u2060\u00adsoft\u180e",
    "lone \ud800 and \udfff, paired \ud83d\ude00",
    "<end_of_text>",
    "a <end_of_text> b <start_of_text> c",
    "!<end_of_text> ?<start_of_text>. '<end_of_text>' a<end_of_text>b 1<end_of_text>2",
    "<end_of_text><end_of_text><start_of_text>!<end_of_text>",
    "'s<end_of_text>'s 'S<start_of_text>it's",
    "word " * 75,
    "word " * 76,
    "x" * 500,
    "!?" * 500,
    "a1" * 300 + "<end_of_text>",
    "\U0001f600" * 100,
]
Pair = tuple[Callable[[list[str]], torch.Tensor], Tokenizer]


def bpe_file(folder: Path, edit: Callable[[list[str]], list[str]]) -> str:
    """A byte-pair file in open_clip's format, made from the default one."""
    with gzip.open(default_bpe()) as file:
        lines = file.read().decode("utf-8").split("\n")
    path = folder / "bpe.txt.gz"
    path.write_bytes(gzip.compress("\n".join(edit(lines)).encode("utf-8"), mtime=0))
    return str(path)


def twins(source: Any) -> Pair:
    content, config = export_tokenizer(source)
    return source, Tokenizer(content, config)


def assert_same(pair: Pair, texts: list[str]) -> None:
    slow, fast = pair
    tokens = fast(texts)
    assert tokens.ids.dtype == np.int32 and tokens.truncated.dtype == bool
    np.testing.assert_array_equal(tokens.ids, slow(texts).numpy(), err_msg=repr(texts))


@pytest.fixture(scope="module", params=["default", "4096", "canonicalize"])
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("bpe")
    match request.param:
        case "default":
            return twins(SimpleTokenizer())
        case "4096":
            return twins(SimpleTokenizer(bpe_file(folder, lambda lines: lines[: 4096 - 512 - 2 + 1])))
    return twins(SimpleTokenizer(clean=request.param))


def test_chosen_texts_equal_open_clip(clip: Pair) -> None:
    for text in TEXTS:
        assert_same(clip, [text])
    assert_same(clip, TEXTS)


# Hugging Face


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers = pytest.importorskip("transformers")
    letters = [chr(code) for code in (*range(33, 127), *range(0xE0, 0xF0), 0x4E00, 0x732B)]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + letter for letter in letters)]
    words += ["cat", "photo", "of", "word", "##ing", "##s"]
    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text("\n".join(words), "utf-8")
    vocabulary = {word: index for index, word in enumerate(words)}
    transformers.BertTokenizerFast(vocab=vocabulary).save_pretrained(folder)
    return folder


@pytest.fixture(
    scope="module",
    params=[
        {},
        {"strip_sep_token": True},
        {"clean": "canonicalize", "context_length": 16},
        {"clean": "lower", "context_length": 5, "padding_side": "left", "truncation_side": "left"},
    ],
    ids=str,
)
def hf(request: pytest.FixtureRequest, bert_folder: Path) -> Pair:
    return twins(HFTokenizer(str(bert_folder), **request.param))


def test_chosen_texts_equal_hugging_face(hf: Pair) -> None:
    for text in [*TEXTS, "a [SEP] b [PAD] [CLS] [MASK] [sep]", "photos of wording cats"]:
        assert_same(hf, [text])
    assert_same(hf, TEXTS)


# Cutting


# Errors


def test_what_cannot_be_exported_is_refused(bert_folder: Path) -> None:
    language = HFTokenizer(str(bert_folder))
    language.set_lang_fn = lambda name: None  # what HFTokenizer does for tokenizers such as NLLB's
    custom = SimpleTokenizer()
    custom.clean_fn = str.upper
    for source in (
        SimpleTokenizer(reduction_mask="simple"),
        SimpleTokenizer(context_length=None),
        HFTokenizer(str(bert_folder), tokenizer_mode="clips"),
        language,
        custom,
    ):
        with pytest.raises(ConfigError):
            export_tokenizer(source)
