"""Whether promised cut-offs hold: random half-memories, asked for what is in them and for what is not.

    python -m benchmarks.cutoff --data DIRECTORY --docs docs/measurements

Each half of a set's things is a memory. What it promises is tested on the things of the other half, and on other
pictures of its own where there are any, in the index that it promises for: its own things, one each, and the one that
is asked for.
DIRECTORY holds the vectors of realclip and products; the drawings come with the package. Takes
ten minutes on one core.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reco_plugin.calibration.cutoff import interval
from reco_plugin.calibration.learn import ask_again
from reco_plugin.calibration.match import BY, MatchState, QueryWay, auc_of, read_matches, reliability_curve
from reco_plugin.evaluate.findings import Chart, Line
from reco_plugin.match import match_rankings
from reco_plugin.refine import Refiner, refiner_for_vectors
from reco_plugin.report.charts import draw, standalone
from reco_plugin.types import Modality, Records, Refinement, Vectors, other

from .page import machine, table
from .realclip_gate import load_imagenet, read, unit
from .research import drawn as drawn_set
from .research import parser_of, publish, spread

HALVES = 20
PROMISES = ((0.9, 0.0), (0.9, 0.2), (0.8, 0.2))
"""Precision, and share of queries without an answer."""
SHOWN = 1
ABSENT = PROMISES[SHOWN][1]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Things:
    """A set: pairs that a memory may hold, and other views of the same things that ask.

    Attributes:
        name: of the set.
        pairs: N.
        thing: (N,) of each.
        group: whether the memory is told the things.
        asks: by modality, vectors (M, D) of queries, their answers (M, D) of the other side, and things (M,).
        other: (M, D) text queries in another wording.
        known: share of the queries that are for things in the memory; 0 where these ask by the memory's own pairs.
        alike: whether queries and answers are drawn as the memory's pairs are; else nothing is promised for them.
    """

    name: str
    pairs: Records
    thing: Rows
    group: bool
    asks: dict[Modality, tuple[Vectors, Vectors, Rows]]
    other: Vectors | None = None
    known: float = 0.5
    alike: bool = True


def imagenet(data: Path) -> Things:
    """1,000 classes, two pictures each with one caption; queries are the caption, and two other pictures."""
    sets = load_imagenet(data)
    classes = np.arange(1000)
    of = np.repeat(classes, 2)
    pairs = Records(
        [f"{n:05d}" for n in range(2000)], sets.image[:, :2].reshape(2000, -1), sets.caption[of], [{}] * 2000
    )
    fresh = sets.image[:, 2]
    return Things(
        "ImageNet, real CLIP", pairs, of, False,
        {"text": (sets.caption, fresh, classes), "image": (fresh, sets.caption, classes)},
        sets.prompt,
    )  # fmt: skip


def products(data: Path) -> Things:
    """1,000 products, one pair each: what is in the memory asks by its own caption or picture."""
    arrays = read(data / "marqo_fashionclip_products.npz")
    image, text, of = arrays["image"], arrays["text"], np.arange(1000)
    pairs = Records([f"{n:05d}" for n in range(1000)], image, text, [{}] * 1000)
    return Things(
        "products, FashionCLIP", pairs, of, False, {"text": (text, image, of), "image": (image, text, of)}, known=0.0
    )


def drawings(cache: Path) -> Things:
    """Emoji, three styles each; a worded caption asks for a drawing in another style, and that for the caption."""
    data, _ = drawn_set("emoji", cache)
    order = np.random.default_rng(0).permutation(len(data.memory))
    of = data.memory_entity[order]
    place = np.array([int((of[:row] == one).sum()) for row, one in enumerate(of.tolist())])
    kept = order[place < 3]
    first = np.unique(data.truth, return_index=True)[1]
    image, text, thing = data.queries.image[first], data.queries.text[first], data.truth[first]
    return Things(
        "drawings, mini CLIP", data.memory.take(kept), data.memory_entity[kept], True,
        {"text": (text, image, thing), "image": (image, text, thing)},
        alike=False,
    )  # fmt: skip


@dataclass(frozen=True)
class Tested:
    """Rankings of queries with their answer in the index and without, and what was said of them.

    Attributes:
        known: (n,) whether the memory has the thing.
        right: (n,) whether the first answer is right, where the index has it.
        passing: by what: where the index has the answer, and where not, what is compared with the cut-off (n,).
        cuts: by what: the promised cut-off.
        shift: what is said of the queries.
    """

    known: npt.NDArray[np.bool_]
    right: npt.NDArray[np.bool_]
    passing: dict[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]
    cuts: Mapping[str, float | None]
    shift: str

    def rates(self, by: str, cut: float, absent: float, known: float) -> tuple[float, float]:
        """Share that passes, and share of these that is right, for a share without an answer and a share known."""
        there, gone = (values >= cut for values in self.passing[by])
        weight = np.where(
            self.known, known / max(int(self.known.sum()), 1), (1 - known) / max(int((~self.known).sum()), 1)
        )
        passing = (1 - absent) * (weight @ there) + absent * (weight @ gone)
        right = (1 - absent) * (weight @ (there & self.right))
        return float(passing), float(right / passing) if passing else float("nan")

    def allowed(self, by: str, precision: float, absent: float, known: float) -> float:
        """The largest share that could pass with the precision, by the labels."""
        cuts = np.quantile(np.concatenate(self.passing[by]), np.linspace(0, 1, 400))
        rates = [self.rates(by, float(cut), absent, known) for cut in cuts]
        return max((passing for passing, right in rates if right >= precision), default=0.0)

    def chances(self, absent: float, rng: np.random.Generator) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """Chances of a match and whether it is one, some queries without an answer."""
        gone = rng.random(len(self.right)) < absent
        there, without = self.passing["match"]
        return np.where(gone, without, there), self.right & ~gone


@dataclass(frozen=True)
class Ranked:
    """The first ten scores of queries, in the index with the answer and without.

    Attributes:
        asked: the queries.
        there, gone: (n, 10) scores with the answer, and without.
        known, right: as in :class:`Tested`.
        modality, way: of the queries.
    """

    asked: Refinement
    there: npt.NDArray[np.float32]
    gone: npt.NDArray[np.float32]
    known: npt.NDArray[np.bool_]
    right: npt.NDArray[np.bool_]
    modality: Modality
    way: QueryWay

    def judge(self, state: MatchState, precision: float, absent: float, arriving: float | None = None) -> Tested:
        """What a memory says of them, promising for a share without an answer; so many, or another share, arrive."""
        say = partial(match_rankings, state, modality=self.modality, precision=precision, absent=absent)
        found, without = say(self.asked, self.there), say(self.asked, self.gone)
        plain = [self.asked.plain_scores(scores).astype(np.float64) for scores in (self.there, self.gone)]
        passing = {
            "score": (plain[0][:, 0], plain[1][:, 0]),
            "lead": (plain[0][:, 0] - plain[0][:, 1], plain[1][:, 0] - plain[1][:, 1]),
            "match": (found.first, without.first),
        }
        share = absent if arriving is None else arriving
        missing = np.random.default_rng(0).random(len(self.right)) < share
        shift = say(self.asked, np.where(missing[:, None], self.gone, self.there)).shift
        cuts: dict[str, float | None] = {by: found.cutoff(by) for by in BY}
        return Tested(self.known, self.right, passing, cuts, shift)


def rank(
    things: Things, refiner: Refiner, index: Rows, modality: Modality, way: QueryWay, queries: Vectors | None = None
) -> Ranked:
    """Ask for things in the memory and others, each in an index of one pair of each of the memory's things.

    Args:
        things: the set.
        refiner: of the memory.
        index: rows of the pairs in the index.
        modality: of the queries.
        way: plain or refined.
        queries: (M, D) in place of the set's own.
    """
    own, answers, of = things.asks[modality]
    vectors = own if queries is None else queries
    asked = refiner.refine(vectors, modality=modality) if way == "refined" else Refinement(vectors, vectors)
    rivals = np.asarray(asked.vectors @ things.pairs.side(other(modality))[index].T)
    rivals[of[:, None] == things.thing[index]] = -1.0
    mine = np.einsum("nd,nd->n", asked.vectors, answers)
    gone = -np.sort(-rivals, axis=1)[:, :10]
    there = -np.sort(-np.concatenate([gone, mine[:, None]], axis=1), axis=1)[:, :10]
    known = np.isin(of, things.thing[index])
    return Ranked(asked, there, gone, known, mine > rivals.max(axis=1), modality, way)


def halves(things: Things, count: int) -> Iterator[tuple[MatchState, Refiner, Rows]]:
    """Memories of random halves of the things: what they promise, and rows of an index of one pair of each thing."""
    names = np.unique(things.thing)
    for seed in range(count):
        rng = np.random.default_rng(seed)
        rows = np.flatnonzero(np.isin(things.thing, rng.permutation(names)[: len(names) // 2]))
        refiner = refiner_for_vectors([things.pairs.take(rows)])
        store = refiner.memory.store
        state = ask_again(store, "entity") if things.group else read_matches(store.header.calibration)
        if state is None:
            raise SystemExit(f"{things.name}: a half-memory of {len(rows)} pairs learned nothing of matches")
        shuffled = rng.permutation(rows)
        yield state, refiner, np.sort(shuffled[np.unique(things.thing[shuffled], return_index=True)[1]])


Found = dict[tuple[Modality, QueryWay], list[list[Tested]]]
"""By side and way, for each half, one for each promise of :data:`PROMISES`."""


def measure(things: Things, count: int) -> tuple[Found, dict[str, list[Tested]]]:
    """Each side and way on each half; and queries of which nothing is promised."""
    found: Found = {(modality, way): [] for modality in ("text", "image") for way in ("plain", "refined")}
    shifted: dict[str, list[Tested]] = {}
    for number, (state, refiner, index) in enumerate(halves(things, count)):
        for modality, way in found if things.alike else ():
            ranked = rank(things, refiner, index, modality, way)
            found[modality, way].append([ranked.judge(state, *promise) for promise in PROMISES])
        for name, queries, arriving in shifts(things):
            ranked = rank(things, refiner, index, "text", "plain", queries)
            shifted.setdefault(name, []).append(ranked.judge(state, *PROMISES[SHOWN], arriving))
        print(things.name, number, flush=True)
    return found, shifted


def shifts(things: Things) -> Iterator[tuple[str, Vectors | None, float]]:
    """Queries of another kind: more of them without an answer, captions moved towards another, another wording."""
    if not things.alike:
        yield "drawings in styles that the memory does not have", None, ABSENT
        return
    yield "half of the queries without an answer", None, 0.5
    text = things.asks["text"][0]
    towards = text[np.random.default_rng(0).permutation(len(text))]
    towards = towards - np.einsum("nd,nd->n", towards, text)[:, None] * text
    towards /= np.linalg.norm(towards, axis=1, keepdims=True) + 1e-9  # of one caption twice
    yield "captions moved to a cosine of .9", unit(0.9 * text + np.sqrt(0.19) * towards), ABSENT
    if things.other is not None:
        yield "other prompts", things.other, ABSENT


def promised(things: Things, found: Found) -> Iterator[list[str]]:
    """Rows of the first table: what was promised on the halves, and how it was kept."""
    for (modality, way), by_half in found.items():
        for number, (precision, absent) in enumerate(PROMISES):
            tested = [half[number] for half in by_half]
            row = [
                things.name if (modality, way, number) == ("text", "plain", 0) else "",
                f"{modality}, {way}" * (not number),
            ]
            row.append(f"{100 * precision:.0f} %, {100 * absent:.0f} %")
            for by in ("lead", "match"):
                kept = [one.rates(by, cut, absent, things.known) for one in tested if (cut := one.cuts[by]) is not None]
                passing = [share for share, _ in kept] + [0.0] * (len(tested) - len(kept))
                broken = sum(right < precision for _, right in kept)
                row += [f"{len(kept)}", f"{broken}", _spread([right for _, right in kept]), _spread(passing)]
            yield [*row, _spread([one.allowed("match", precision, absent, things.known) for one in tested])]


def _spread(values: Sequence[float]) -> str:
    return spread(100.0 * np.array(values))


def reliable(name: str, found: Found) -> Iterator[list[str]]:
    """Rows of the second table: how well the chances hold."""
    for (modality, way), by_half in found.items():
        rng, tested = np.random.default_rng(0), [half[SHOWN] for half in by_half]
        pairs = [one.chances(ABSENT, rng) for one in tested]
        yield [
            name if (modality, way) == ("text", "plain") else "",
            f"{modality}, {way}",
            spread([auc_of(c, y) for c, y in pairs], 3),
            f"{np.mean([reliability_curve(c, y)[0] for c, y in pairs]):.3f}",
            f"{_error(pairs, [one.known for one in tested]):.3f}",
            f"{_error(pairs, [~one.known for one in tested]):.3f}",
            f"{sum(bool(one.shift) for one in tested)}",
        ]


def _error(
    pairs: Sequence[tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]], masks: Sequence[npt.NDArray[np.bool_]]
) -> float:
    """Mean expected calibration error of some queries of each half."""
    errors = [reliability_curve(c[mask], y[mask])[0] for (c, y), mask in zip(pairs, masks, strict=True)]
    return float(np.mean(errors))


def shifted_rows(things: Things, shifted: dict[str, list[Tested]]) -> Iterator[list[str]]:
    """Rows of the third table: queries of which nothing is promised."""
    name, known = things.name, things.known
    for kind, tested in shifted.items():
        absent = 0.5 if kind.startswith("half") else ABSENT
        kept = [one.rates("match", cut, absent, known)[1] for one in tested if (cut := one.cuts["match"]) is not None]
        said = sum(bool(one.shift) for one in tested)
        yield [name, kind, f"{said} of {len(tested)}", _spread([one for one in kept if not np.isnan(one)])]


def chart(name: str, found: Found) -> str:
    """A reliability diagram of all halves: the share of right first answers by the chance that was given."""
    middles = [round(0.05 + 0.1 * number, 2) for number in range(10)]
    lines = []
    for (modality, way), by_half in found.items():
        rng, tested = np.random.default_rng(0), [half[SHOWN] for half in by_half]
        parts = [one.chances(ABSENT, rng) for one in tested]
        chance, true = (np.concatenate(column) for column in zip(*parts, strict=True))
        place = np.minimum((chance * 10).astype(int), 9)
        counts = [(int(true[place == number].sum()), int((place == number).sum())) for number in range(10)]
        bounds = [interval(*one) if one[1] >= 30 else None for one in counts]
        y, low, high = ([None if one is None else one[side] for one in bounds] for side in range(3))
        lines.append(Line(name=f"{modality}, {way}", y=tuple(y), low=tuple(low), high=tuple(high)))
    lines.append(Line(name="as said", y=tuple(middles)))
    drawn = Chart(
        title=f"{name}: first answers that are right, by the chance that was given",
        x_title="chance of a match", y_title="share that is right", x=tuple(middles), lines=tuple(lines),
        y_kind="number",
    )  # fmt: skip
    return standalone(draw(drawn, f"cutoff-{name}"), drawn.title)


def main() -> None:
    """Measure, and write the page's blocks and charts."""
    parser = parser_of(__doc__, "cutoff", data="folder with the vectors of realclip and products")
    parser.add_argument("--halves", type=int, default=HALVES)
    given = parser.parse_args()
    sets = {"drawings": partial(drawings, given.cache)}
    if given.data:
        sets |= {"imagenet": partial(imagenet, given.data), "products": partial(products, given.data)}
    first, second, third = list[list[str]](), list[list[str]](), list[list[str]]()
    for key, load in sets.items():
        things = load()
        found, shifted = measure(things, given.halves)
        third += shifted_rows(things, shifted)
        if not things.alike:
            continue
        first += promised(things, found)
        second += reliable(things.name, found)
        if given.docs:
            (given.docs / "cutoff").mkdir(exist_ok=True)
            (given.docs / "cutoff" / f"{key}.svg").write_text(chart(things.name, found))
    blocks = {
        "promised": table(PROMISED, first, left=3),
        "reliable": table(RELIABLE, second, left=2),
        "shifted": table(SHIFTED, third, left=2),
        "machine": f"{given.halves} halves. {machine('numpy')}",
    }
    publish(given.docs, "cutoff", blocks)


PROMISED = (
    "set", "queries", "promise, no answer",
    *(f"{by}: {what}" for by in ("lead", "match") for what in ("given", "broken", "right, %", "passes, %")),
    "labels would allow, %",
)  # fmt: skip
RELIABLE = (
    "set", "queries", "AUC", "calibration error", "of known things", "of new things", "halves called shifted"
)  # fmt: skip
SHIFTED = ("set", "queries", "said so", "right of what passes, %")


if __name__ == "__main__":
    main()
