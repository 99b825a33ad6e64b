"""Does refinement help search by captions? Recall and nDCG in both directions, each side on or off."""

from __future__ import annotations

from ...findings import Cell, Column, Section, Table
from ...metrics import RECALL_AT
from ...retrieval import retrieval
from ..study import Study

TITLE = "Does it help search by captions?"


def captions(study: Study) -> Section:
    """The retrieval table; without a retrieval set, a note."""
    if study.captioned is None:
        return Section(
            key="retrieval",
            title=TITLE,
            about=(
                "Not measured: a labelled set has no captions to search by. Give a retrieval set with --captions "
                "(a table with image and text, .npz, shards, or a folder)."
            ),
        )
    result = retrieval(study.ours.refiners(study.subject.memory)[0], study.captioned)
    rows: list[dict[str, Cell]] = []
    for line in study.watch(list(result.variants), "retrieval"):
        gained = {"gain": None if line.refined == "frozen" else line.gain, "ndcg10": line.ndcg10}
        recall = {f"R@{k}": share for k, share in line.recall.items()}
        rows.append({"direction": line.direction, "refined": line.refined, **recall, **gained})
    columns = [Column(key=key, title=key) for key in ("direction", "refined")]
    columns += [Column(key=key, title=key, kind="percent") for key in (*(f"R@{k}" for k in RECALL_AT), "ndcg10")]
    columns.append(Column(key="gain", title="gain", kind="points"))
    return Section(
        key="retrieval",
        title=TITLE,
        about=(
            f"{result.name}: {result.images:,} images, {result.texts:,} texts, searched both ways. The searching "
            "side is refined as queries, the searched side as candidates; with the query alone refined, an existing "
            "index stays valid. Gains are differences to frozen CLIP on the same queries, with 95 % bootstrap "
            "intervals drawn over images." + (" With the first model." if len(study.subject.names) > 1 else "")
        ),
        tables=(Table(title="", columns=tuple(columns), rows=tuple(rows)),),
    )
