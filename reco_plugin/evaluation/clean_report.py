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
from .clean import CaptionScores, K, score_captions
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
        cards: the worst first, after pictures with many captions.
        first, parts: the counts behind the sentences.
        notes: what a reader has to know.
    """

    title: str
    command: str
    key: str
    setup: Mapping[str, Any]
    sentences: Sequence[str]
    cards: Sequence[CaptionCard]
    first: Mapping[int, Count]
    parts: Sequence[Any]
    notes: Sequence[str]

    def to_dict(self) -> dict[str, Any]:
        """JSON-like values, without pictures."""
        values = asdict(self)
        for card in values["cards"]:
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

    Args:
        labelled: pairs with captions and pictures.
        show: how many to list.
        decided: earlier decisions; a pair that still has the judged caption is not listed again.
        command: that makes the list again.
        seed: of what is drawn.

    Raises:
        DataError: fewer than 100 pairs, or captions that are all the same.
    """
    pairs, texts, thumbnails = labelled.pairs, list(labelled.texts), Thumbnails()
    scores = score_captions(pairs.image, pairs.text, suggestions=max(show, LENGTHS[-1]), seed=seed)
    known = decided or {}
    done = {row for row, id_ in enumerate(pairs.ids) if id_ in known and known[id_].old == texts[row]}
    same = _same_pictures(scores, texts)
    hidden = done.union(*same) if same else done
    order = np.array([row for row in scores.order.tolist() if row not in hidden], np.intp)
    counts = count_wrong(scores, order, seed)
    cards = [_many(labelled, rows, thumbnails) for rows in same if not done.intersection(rows)]
    cards += [_card(labelled, scores, counts, row, thumbnails) for row in order[:show].tolist()]
    judged = "\0".join(word for card in cards for pair in card.pairs for word in pair)
    digest = hashlib.sha256(judged.encode()).hexdigest()[:16]  # a changed caption asks for a new decision
    setup = {"source": labelled.name, "pairs": f"{len(pairs):,}", "captions": f"{len(set(texts)):,}"}
    if done:
        setup["decided before"] = f"{len(done):,}"
    sentences = _sentences(counts, len(same))
    return CleanRecord(
        "Captions to look at first",
        command,
        digest,
        setup,
        sentences,
        cards,
        counts.first,
        counts.parts,
        labelled.notes,
    )


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


def _sentences(counts: Counts, same: int) -> list[str]:
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
    if same:
        made.append(f"{same:,} pictures stand under three captions or more; they come first.")
    return made


def _range(count: Count) -> str:
    return f"{count.low:,.0f}" if count.low == count.high else f"{count.low:,.0f} to {count.high:,.0f}"
