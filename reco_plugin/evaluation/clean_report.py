"""The captions to look at first: what `reco clean` lists, and its page."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..files import as_data_error, whole_file
from ..ingest.corrections import Correction
from ..sources.rows import Rejected
from ..values import CONFIRMED
from .clean import CaptionScores, Decided, K, score_captions
from .clean_count import LENGTHS, Count, Counts, count_wrong
from .labelled_set import LabelledSet
from .report import Thumbnails, render_template

_WHY = (
    "CLIP scores other captions higher for this picture",
    "pictures like this have other captions",
    "captions like this have other pictures",
    "the most similar pictures have other captions",
    "the most similar captions have other pictures",
    "the other pictures under this caption look different",
)


@dataclass(frozen=True)
class CaptionCard:
    """One decision.

    Attributes:
        pairs: id and caption of the pair; of one picture under many captions, of all of them.
        name: id, or number of pairs, for people.
        caption: that it has.
        suggestion: caption that the neighbours suggest; empty where there is none.
        why: it is listed.
        chance: of the caption to be wrong; None where that is not known.
        picture: as a data URI.
    """

    pairs: Sequence[tuple[str, str]]
    name: str
    caption: str
    suggestion: str
    why: str
    chance: float | None
    picture: str | None = None


@dataclass(frozen=True)
class CleanRecord:
    """What the page shows.

    Attributes:
        title, command, key: of the page, and of the decisions that the browser keeps.
        setup: names and counts.
        sentences: how many captions are wrong, and what cannot be told.
        certain: broken pictures, and pictures with many captions.
        cards: captions that are probably wrong, the worst first.
        first, parts: the counts behind the sentences.
        notes: what a reader has to know.
    """

    title: str
    command: str
    key: str
    setup: Mapping[str, Any]
    sentences: Sequence[str]
    certain: Sequence[CaptionCard]
    cards: Sequence[CaptionCard]
    first: Mapping[int, Count]
    parts: Sequence[Any]
    notes: Sequence[str]

    def to_dict(self) -> dict[str, Any]:
        """JSON-like values, without pictures."""
        values = asdict(self)
        for card in (*values["certain"], *values["cards"]):
            del card["picture"]
        return values


def find_wrong(
    labelled: LabelledSet,
    *,
    show: int = 100,
    decided: Mapping[str, Correction] | None = None,
    command: str = "",
    seed: int = 0,
) -> CleanRecord:
    """List the captions of N pairs that are probably wrong.

    A caption that was decided, in ``decided`` or as right in the pair's payload, is not listed again, and the list
    learns from it.

    Args:
        labelled: pairs with captions and pictures.
        show: how many to list.
        decided: earlier decisions by id, each of its own caption only.
        command: that makes the list again.
        seed: of what is drawn.

    Raises:
        DataError: fewer than 100 pairs, or captions that are all the same.
    """
    pairs, texts, thumbnails = labelled.pairs, labelled.texts, Thumbnails()
    known = _decisions(labelled, decided or {})
    suggestions = max(show, LENGTHS[-1])
    scores = score_captions(pairs.image, pairs.text, decided=known, suggestions=suggestions, seed=seed)
    done = known != 0
    same = [rows for rows in _same_pictures(scores, texts) if not done[rows].any()]
    hidden = done.copy()
    hidden[[row for rows in same for row in rows]] = True
    order = np.array([row for row in scores.order.tolist() if not hidden[row]], np.intp)
    counts = count_wrong(scores, order, done, seed)
    certain = [_broken(text, row) for text, row in labelled.broken if row.id not in (decided or {})]
    certain += [_many(labelled, rows, thumbnails) for rows in same]
    cards = [_card(labelled, scores, counts, row, thumbnails) for row in order[:show].tolist()]
    judged = "\0".join(word for card in (*certain, *cards) for pair in card.pairs for word in pair)
    digest = hashlib.sha256(judged.encode()).hexdigest()[:16]  # a changed caption asks for a new decision
    setup = {"source": labelled.name, "pairs": f"{len(pairs):,}", "captions": f"{len(set(texts)):,}"}
    if done.any():
        setup["decided before"] = f"{done.sum():,}"
    return CleanRecord(
        "Captions to look at first",
        command,
        digest,
        setup,
        _sentences(counts),
        certain,
        cards,
        counts.first,
        counts.parts,
        labelled.notes,
    )


def _decisions(labelled: LabelledSet, decided: Mapping[str, Correction]) -> Decided:
    """What is known of the captions (N,): 1: right, -1: wrong, 0: nothing."""
    known = np.zeros(len(labelled), np.int8)
    for row, (id_, text) in enumerate(zip(labelled.pairs.ids, labelled.texts, strict=True)):
        one = decided.get(id_)
        if labelled.pairs.payloads[row].get(CONFIRMED) is True or (one is not None and one.confirms(text)):
            known[row] = 1
        elif one is not None and one.old == text:
            known[row] = -1
    return known


def write_clean(record: CleanRecord, folder: Path) -> Path:
    """Write ``clean.html`` into a folder, which is made; returns its path.

    Raises:
        DataError: it cannot be written.
        MissingExtra: jinja2 is not installed.
    """
    with as_data_error(f"{folder} cannot be made"):
        folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / "clean.html") as part:
        part.write_text(render_template("clean", record=record), encoding="utf-8")
    return folder / "clean.html"


def _same_pictures(scores: CaptionScores, texts: Sequence[str]) -> list[list[int]]:
    """Rows of one picture under three captions or more: a placeholder, or one that stands for many things."""
    groups = dict[int, list[int]]()
    for row, group in enumerate(scores.picture.tolist()):
        groups.setdefault(group, []).append(row)
    many = [rows for rows in groups.values() if len({texts[row] for row in rows}) > 2]
    return sorted(many, key=len, reverse=True)


def _broken(text: str, row: Rejected) -> CaptionCard:
    name = str(row.id)
    return CaptionCard([(name, text)], name, text, "", row.reason, None)


def _many(labelled: LabelledSet, rows: Sequence[int], thumbnails: Thumbnails) -> CaptionCard:
    captions = list(dict.fromkeys(labelled.texts[row] for row in rows))
    why = f"the same picture stands under {len(captions):,} captions: is it a placeholder?"
    shown = "; ".join(captions[:5]) + ("; …" if len(captions) > 5 else "")
    pairs = [(labelled.pairs.ids[row], labelled.texts[row]) for row in rows]
    return CaptionCard(pairs, f"{len(rows):,} pairs", shown, "", why, None, _picture(labelled, rows[0], thumbnails))


def _card(
    labelled: LabelledSet, scores: CaptionScores, counts: Counts, row: int, thumbnails: Thumbnails
) -> CaptionCard:
    texts = labelled.texts
    suggested = scores.suggested.get(row)
    suggestion = "" if suggested is None else texts[suggested]
    why = _WHY[int(scores.signals[row].argmax())]
    if (called := scores.agreeing.get(row, 0)) > 1:
        why = f"{called} of the {K} pictures most like this one are called so"
    chance = float(counts.chance[row])
    id_ = labelled.pairs.ids[row]
    shown = None if suggestion == texts[row] else suggestion
    return CaptionCard(
        [(id_, texts[row])], id_, texts[row], shown or "", why, chance if counts.is_known[row] else None,
        _picture(labelled, row, thumbnails),
    )  # fmt: skip


def _picture(labelled: LabelledSet, row: int, thumbnails: Thumbnails) -> str | None:
    id_ = labelled.pairs.ids[row]
    return thumbnails.of(id_, labelled.pictures[id_]) if id_ in labelled.pictures else None


def _sentences(counts: Counts) -> list[str]:
    made = list[str]()
    if all(part.known for part in counts.parts):
        expected = [f"{_range(count)} of the first {length}" for length, count in counts.first.items()]
        made.append(f"Expected to be wrong: {', '.join(expected)} (90 % intervals).")
    for part in counts.parts:
        many, how = f"{part.pairs:,} {part.name}", f"{_range(part.wrong)} (90 % interval)"
        if part.known:
            made.append(f"Of the {many}, {how} are expected to be wrong.")
        else:
            made.append(
                f"How many of the {many} are wrong cannot be told: {how}. Right and wrong ones score alike. "
                "The order is still the best guess."
            )
    return made


def _range(count: Count) -> str:
    return f"{count.low:,.0f}" if count.low == count.high else f"{count.low:,.0f} to {count.high:,.0f}"
