"""Token ids are equal to open_clip's, whatever the text."""

from __future__ import annotations

import gzip
import html
import json
import string
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any, cast

import ftfy
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from reco_plugin.errors import ArtifactError, ConfigError, InputError
from reco_plugin.preprocess import TextConfig, Tokenizer, cut_by_length, cut_to_longest
from reco_plugin.preprocess.text import clean

pytest.importorskip("open_clip")
import regex  # type: ignore[import-untyped]
import torch
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer, default_bpe

from reco_plugin.models.open_clip import export_tokenizer

pytestmark = pytest.mark.filterwarnings("error")

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
    "it'\u017f a long s, <\u017ftart_of_text>, \u017f",
    "12 345 3.14 1,000,000 \u00bd \u2167 \u0661\u0662\u0663 \u4e09 10\u2075 \u2460",
    "price: $9.99!!! (50% off) #sale @home a_b __init__ --- ... ??",
    "\u4e00\u53ea\u732b\u5728\u57a3\u5b50\u4e0a \u732b\u304c\u597d\u304d \uace0\uc591\uc774 \U00020000\U0002a6d6",
    "\u0642\u0637\u0629 \u0639\u0644\u0649 \u05d7\u05ea\u05d5\u05dc \u200f\u202babc\u202c",
    "\u0e41\u0e21\u0e27 \u092c\u093f\u0932\u094d\u0932\u0940",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466",
    "\U0001f3f3\ufe0f\u200d\U0001f308 \U0001f44d\U0001f3fd \u2764\ufe0f \U0001f1e9\U0001f1ea",
    "e\u0301 n\u0303 a\u0345b \u1fb3 \u0345 Z\u0351\u036b\u0343\u036a a\u0300\u0301\u0302",
    "\ufb01ne \ufb04 \ufb05 \ufb06 \u00df \u1e9e \u0130stanbul I\u0307 \u01c5 \u2126 \u212a \u212b \u03c2\u03a3",
    "sch\u00c3\u00b6n \u00e2\u20ac\u201d caf\u00c3\u00a9",
    "\u00e2\u20ac\u0153quoted\u00e2\u20ac\u009d \u00f0\u0178\u02dc\u00ba",
    "&lt;b&gt; &amp;amp;amp; &eacute; &#233; &#x1F600; &amp;lt;end_of_text&amp;gt; &nbsp; &notanentity; &#xD800; &#0;",
    "a\x00b\x07c\x1b[31m\x7f\x85d\x1c\x1de\ufeff",
    "zero\u200bwidth\u200cjoin\u200der\u2060\u00adsoft\u180e",
    "lone \ud800 and \udfff, paired \ud83d\ude00",
    "\u0558 \u058b \u088f \u1c89 \ua7cb \U000105c0 \U00031350 \U00011de0 \ue000 \U0010ffff",  # newer than Unicode 14
    "<end_of_text>",
    "a <end_of_text> b <start_of_text> c",
    "!<end_of_text> ?<start_of_text>. '<end_of_text>' a<end_of_text>b 1<end_of_text>2",
    "<end_of_text><end_of_text><start_of_text>!<end_of_text>",
    "<END_OF_TEXT><end_of_text> <End_Of_Text> <end_of_text",
    "'s<end_of_text>'s 'S<start_of_text>it's",
    "word " * 75,
    "word " * 76,
    "x" * 500,
    "!?" * 500,
    "a1" * 300 + "<end_of_text>",
    "\U0001f600" * 100,
]
NASTY = st.text(
    st.sampled_from([*"sStTdDmMlLrRvVeE'<>_! 1\n\t&;#xX", "\u017f", "\u0345", "\u0301", "\u212a", "\ufb06", "\u4e00"])
)
FRAGMENTS = st.lists(
    st.sampled_from(["<end_of_text>", "<start_of_text>", "<END_of_text>", " ", "!", "'s", "'", "a", "1", "\u00df", "<"])
).map("".join)
ANY = st.text(st.characters())  # lone surrogates too
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


@pytest.fixture(
    scope="module", params=["default", "4096", "4096-newline-20", "whitespace", "canonicalize", "one", "two"]
)
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("bpe")
    match request.param:
        case "default":
            return twins(SimpleTokenizer())
        case "4096":
            return twins(SimpleTokenizer(bpe_file(folder, lambda lines: lines[: 4096 - 512 - 2 + 1])))
        case "4096-newline-20":
            path = bpe_file(folder, lambda lines: [*lines[: 4096 - 512 - 2 + 1], ""])
            return twins(SimpleTokenizer(path, context_length=20))
        case "one" | "two":
            return twins(SimpleTokenizer(context_length={"one": 1, "two": 2}[request.param]))
    return twins(SimpleTokenizer(clean=request.param))


@pytest.fixture(scope="module")
def exported() -> tuple[str, TextConfig]:
    """Of open_clip's default tokenizer; its byte pairs take a third of a second."""
    return export_tokenizer(SimpleTokenizer())


@pytest.fixture(scope="module")
def tokenizer(exported: tuple[str, TextConfig]) -> Tokenizer:
    return Tokenizer(*exported)


def test_chosen_texts_equal_open_clip(clip: Pair) -> None:
    for text in TEXTS:
        assert_same(clip, [text])
    assert_same(clip, TEXTS)


@settings(max_examples=60, deadline=None)
@given(st.lists(ANY | NASTY | FRAGMENTS, min_size=1, max_size=5))
@example(["\u0345"])
def test_any_text_equals_open_clip(clip: Pair, texts: list[str]) -> None:
    assert_same(clip, texts)


def as_open_clip(text: str, how: str) -> str:
    """The cleaning without any care for how long it takes."""
    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    if how == "canonicalize":
        text = text.replace("_", " ").translate(str.maketrans("", "", string.punctuation)).lower()
    text = " ".join(text.split())
    return text.lower() if how == "lower" else text


MARKS = ("\u0301", "\u0323\u0301", "\u0f73", "\u1e69", "I\u0300\x81", "\u1100\u1161", "\uff21", "\ufb03", "\u2019")
ESCAPED = ("&amp;", "&amp;amp;lt;", "&eacute;", "&#769;", "\u00c3\u00a9", "\u00e2\u20ac\u0153", "\ud83d", "\x1b[31m")
PIECES = st.sampled_from([*"a\u00e9<>&;\n\r\t\x1b\x85 ", "word ", *MARKS, *ESCAPED])


@settings(max_examples=40, deadline=None)
@given(st.lists(ANY | NASTY | PIECES, max_size=40).map("".join), st.sampled_from([1, 20, 200]), st.integers(0, 700))
@pytest.mark.parametrize("how", ["lower", "whitespace", "canonicalize"])
def test_texts_are_mended_as_ever(how: Any, text: str, times: int, filled: int) -> None:
    """Long ones go another way than short ones."""
    for given_ in (text, text * times, text + "x " * filled + text):
        assert clean(given_[:5000], how) == as_open_clip(given_[:5000], how)


def test_no_text_takes_time_that_grows_with_the_square_of_its_length() -> None:
    """Each of these took between three seconds and a minute."""
    nasty = ["a" + "\u0301\u0323" * 25_000, "a" + "\u0f73" * 50_000, "a" + "\xcc\x81\xcc\xa3" * 12_500]
    nasty += ["&" + "amp;" * 12_500, "\n" * 50_000]
    code = f"from reco_plugin.preprocess.text import clean\nfor text in {nasty!a}: clean(text, 'lower')"
    subprocess.run([sys.executable, "-"], input=code.encode(), check=True, timeout=60)


def test_every_character_is_split_as_open_clip_does(tokenizer: Tokenizer) -> None:
    """17,480 characters differ between the two regex engines; see ``_spelled_out``."""
    slow, fast = SimpleTokenizer(), tokenizer
    planes = (*range(0x40000), *range(0xE0000, 0xF0000), *range(0x40000, 0x110000, 97))  # some of those without letters
    every = [chr(code) for code in planes if not 0xD800 <= code < 0xE000]
    for first in range(0, len(every), 4096):
        for text in (glue.join(every[first : first + 4096]) for glue in ("", "a'")):
            expected = regex.findall(slow.pat, text)
            split = fast._backend.pre_tokenizer.pre_tokenize_str(text)
            assert [text[start:end] for _, (start, end) in split] == expected
            assert [len(piece) for piece, _ in split] == [len(word.encode()) for word in expected]


def test_every_character_in_a_sentence_equals_open_clip() -> None:
    pair = twins(SimpleTokenizer(context_length=2000, clean="whitespace"))
    every = [
        chr(code) for code in range(0x2FFFF) if code < 0x3400 or 0xA000 <= code < 0xAC00 or 0xF900 <= code < 0x13000
    ]
    for first in range(0, len(every), 400):
        assert_same(pair, ["x".join(every[first : first + 400])])


def test_truncation_is_reported(tokenizer: Tokenizer) -> None:
    tokens = tokenizer(["word " * 75, "word " * 76, "", "<end_of_text> " * 99])
    assert tokens.truncated.tolist() == [False, True, False, True]
    assert tokens.ids[:, -1].tolist() == [49407, 49407, 0, 49407]


def test_file_and_content_are_both_taken(
    exported: tuple[str, TextConfig], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    content, config = exported
    path = tmp_path / "tokenizer.json"
    path.write_text(content, "utf-8")
    expected = tokenizer(["a cat"]).ids
    assert (Tokenizer(path, config)(["a cat"]).ids == expected).all()
    assert (Tokenizer(str(path), config)(("a cat",)).ids == expected).all()
    assert export_tokenizer(SimpleTokenizer())[0] == content


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


@settings(max_examples=50, deadline=None)
@given(st.lists(ANY | NASTY, min_size=1, max_size=4))
def test_any_text_equals_hugging_face(hf: Pair, texts: list[str]) -> None:
    assert_same(hf, texts)


def test_hugging_face_words_and_truncation(bert_folder: Path) -> None:
    source = HFTokenizer(str(bert_folder), context_length=8, strip_sep_token=True)
    source(["used before, so the backend holds a state of its own"], context_length=5)
    slow, fast = twins(source)
    tokens = fast(["a photo of cats", "word " * 6, "word " * 7])
    assert tokens.truncated.tolist() == [False, False, True]
    assert len(set(tokens.ids[0].tolist())) == 7  # [CLS], four words and ##s, 0: not all unknown
    assert_same((slow, fast), ["a photo of cats", "word " * 6, "word " * 7])


# Cutting


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", 16), ("word " * 14, 16), ("word " * 15, 32), ("word " * 62, 64), ("word " * 63, 77), ("word " * 99, 77)],
)
def test_cut_rounds_up_to_a_bucket(
    text: str, expected: int, exported: tuple[str, TextConfig], tokenizer: Tokenizer
) -> None:
    config = replace(exported[1], dynamic=True)
    ids = tokenizer(["a", text]).ids
    cut = cut_to_longest(ids, config)
    assert cut.shape == (2, expected) and cut.dtype == np.int32
    assert (ids[:, :expected] == cut).all() and not ids[:, expected:].any()


def test_cut_keeps_what_it_may_not_cut() -> None:
    config = TextConfig("clip", 6, "lower", pad_id=0, end_id=9, dynamic=True, buckets=(2, 3))
    ids = np.array([[1, 9, 0, 0, 0, 0], [1, 2, 9, 0, 0, 0]], np.int32)
    assert cut_to_longest(ids, config).shape == (2, 3)
    assert cut_to_longest(ids, replace(config, buckets=())).shape == (2, 6)
    assert cut_to_longest(ids, replace(config, buckets=(16, 32))).shape == (2, 6)  # none below the context length
    assert cut_to_longest(np.array([[1, 9, 9, 0, 0, 0]], np.int32), config).shape == (1, 3)  # the last end
    assert cut_to_longest(ids, replace(config, dynamic=False)).shape == (2, 6)
    assert cut_to_longest(ids, replace(config, kind="hf", end_id=None, dynamic=False)).shape == (2, 6)
    assert cut_to_longest(np.ones((1, 6), np.int32), config).shape == (1, 6)  # no end: not of this tokenizer
    assert cut_to_longest(ids[:0], config).shape == (0, 6)


def test_texts_are_cut_with_those_of_their_length() -> None:
    config = TextConfig("clip", 77, "lower", pad_id=0, end_id=9, dynamic=True)
    ends = [3, 70, 20, 15, 16, 40, 5]
    ids = np.ones((len(ends), 77), np.int32)
    ids[range(len(ends)), ends] = 9
    parts = cut_by_length(ids, config)
    assert [(rows.tolist(), cut.shape[1]) for rows, cut in parts] == [
        ([0, 3, 6], 16),
        ([2, 4], 32),
        ([5], 48),
        ([1], 77),
    ]
    assert all((ids[rows, : cut.shape[1]] == cut).all() for rows, cut in parts)
    few = cut_by_length(ids[[0, 2]], config)  # one more call of the graph would cost more than the padding
    assert [(rows.tolist(), cut.shape) for rows, cut in few] == [([0, 1], (2, 32))]
    own = cut_by_length(ids, config, exact=True)
    assert [(rows.tolist(), cut.shape[1]) for rows, cut in own] == [([0, 6], 6), ([2, 3, 4], 21), ([5], 41), ([1], 71)]
    assert all((ids[rows, : cut.shape[1]] == cut).all() for rows, cut in own)
    for exact in (False, True):
        whole = cut_by_length(ids, replace(config, dynamic=False), exact=exact)
        assert [(rows.tolist(), cut.shape) for rows, cut in whole] == [([*range(7)], (7, 77))]


@given(st.lists(st.integers(1, 20), min_size=1, max_size=9))
def test_no_other_batches_by_length_are_cheaper(needed: list[int]) -> None:
    """The slow twin tries all ways to cut the texts in order of length."""
    config = TextConfig("clip", 20, "lower", pad_id=0, end_id=9, dynamic=True)
    ids = np.ones((len(needed), 20), np.int32)
    ids[range(len(needed)), np.array(needed) - 1] = 9
    found = [(len(rows), cut.shape[1]) for rows, cut in cut_by_length(ids, config, exact=True)]
    ordered = sorted(needed)
    ways = product((False, True), repeat=len(needed) - 1)
    cuts = ([0, *(place + 1 for place, cut in enumerate(way) if cut), len(needed)] for way in ways)
    costs = (sum(16 + (end - start) * ordered[end - 1] for start, end in pairwise(one)) for one in cuts)
    assert sum(16 + rows * length for rows, length in found) == min(costs)
    assert sum(rows for rows, _ in found) == len(needed)


def test_lengths_are_the_buckets_below_the_context_length_and_itself() -> None:
    config = TextConfig("clip", 20, "lower", pad_id=0, end_id=9, dynamic=True, buckets=(32, 16, 8))
    assert config.lengths == (8, 16, 20)
    assert replace(config, dynamic=False).lengths == (20,)
    assert STORED.validate_json(json.dumps(config.to_dict())) == config
    with pytest.raises(ConfigError, match=r"buckets \(0,\) must be"):
        replace(config, buckets=(0,))


def test_cut_changes_no_vector_of_a_causal_tower(exported: tuple[str, TextConfig], tokenizer: Tokenizer) -> None:
    """The slow twin is the whole length."""
    from open_clip.transformer import TextTransformer

    torch.manual_seed(0)
    tower = TextTransformer(width=32, heads=2, layers=2, output_dim=16).eval()
    config = replace(exported[1], dynamic=True)
    for texts in (["a cat", "a photo of two dogs"], ["", "a <end_of_text> b"], ["word " * 40]):
        ids = tokenizer(texts).ids
        cut = cut_to_longest(ids, config)
        assert cut.shape[1] < ids.shape[1]
        with torch.no_grad():
            tower.attn_mask = tower.build_causal_mask()
            whole = tower(torch.from_numpy(ids).long()).numpy()
            tower.attn_mask = tower.attn_mask[: cut.shape[1], : cut.shape[1]]  # open_clip does not cut its mask itself
            short = tower(torch.from_numpy(cut).long()).numpy()
        np.testing.assert_allclose(short, whole, atol=1e-6)


# Errors


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "texts is empty"),
        ("a cat", r"pass a list of texts, \[text\]"),
        (None, "pass a list of texts"),
        (["a", None], "text 1 is a NoneType, not a string"),
        (["a", b"cat"], "text 1 is a bytes"),
        ([["a cat"]], "text 0 is a list"),
    ],
    ids=repr,
)
def test_wrong_texts_are_refused(tokenizer: Tokenizer, texts: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tokenizer(texts)


def test_wrong_file_is_refused(exported: tuple[str, TextConfig], tmp_path: Path) -> None:
    content, config = exported
    (tmp_path / "cut.json").write_text(content[:1000], "utf-8")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe")
    wrong: list[tuple[Path | str, str]] = [
        (tmp_path / "none.json", "none.json.*cannot be read"),
        (tmp_path / "cut.json", "cut.json.*is not a tokenizer file"),
        (tmp_path / "binary.json", "binary.json.*is not a tokenizer file"),
        ("{}", "the given text is not a tokenizer file"),
    ]
    for source, message in wrong:
        with pytest.raises(ArtifactError, match=message):
            Tokenizer(source, config)
    with pytest.raises(ArtifactError, match=r"49407.*says that a text ends with 5"):
        Tokenizer(content, replace(config, end_id=5))
    with pytest.raises(ArtifactError, match="nothing of truncation"):
        Tokenizer(content, TextConfig("hf", 77, "lower", pad_id=0))


def test_config_survives_json(bert_folder: Path) -> None:
    sources = SimpleTokenizer(context_length=20), HFTokenizer(str(bert_folder), strip_sep_token=True)
    for config in (export_tokenizer(source)[1] for source in sources):
        assert STORED.validate_json(json.dumps(config.to_dict())) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "bpe"}, "'bpe' is none of"),
        ({"clean": "upper"}, "'upper' is none of"),
        ({"context_length": 0}, "context length 0"),
        ({"context_length": "77"}, "context length '77'"),
        ({"pad_id": None}, "pad_id None"),
        ({"dynamic": "yes"}, "dynamic 'yes'"),
        ({"end_id": None}, "kind clip needs end_id"),
        ({"strip_id": 1}, "not strip_id"),
        ({"kind": "hf"}, "kind hf takes end_id only where it is the pad_id"),
    ],
    ids=repr,
)
def test_wrong_config_is_refused(change: dict[str, Any], message: str) -> None:
    good = TextConfig("clip", 77, "lower", pad_id=0, end_id=9)
    with pytest.raises(ConfigError, match=message):
        replace(good, **change)


def test_what_cannot_be_exported_is_refused(bert_folder: Path, tmp_path: Path) -> None:
    language = HFTokenizer(str(bert_folder))
    language.set_lang_fn = lambda name: None  # what HFTokenizer does for tokenizers such as NLLB's
    custom = SimpleTokenizer()
    custom.clean_fn = str.upper
    split = HFTokenizer(str(bert_folder))
    split.tokenizer.split_special_tokens = True
    swapped = bpe_file(tmp_path, lambda lines: [lines[0], *reversed(lines[1:600])])
    for source, message in [
        (SimpleTokenizer(reduction_mask="simple"), "reduction_mask drops tokens at random"),
        (SimpleTokenizer(additional_special_tokens=["<mask>"]), "additional special tokens"),
        (SimpleTokenizer(swapped), "merge .* is repeated or out of order"),
        (SimpleTokenizer(context_length=None), "no context length"),
        (HFTokenizer(str(bert_folder), tokenizer_mode="clips"), "'clips' is not supported"),
        (language, "depends on a language"),
        (split, "split_special_tokens"),
        (custom, "is none of open_clip's"),
        (cast("Any", object()), "object is neither"),
    ]:
        with pytest.raises(ConfigError, match=message):
            export_tokenizer(source)
