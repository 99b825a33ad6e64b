"""Every section on a world whose answers are known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from reco_plugin.data import Captioned
from reco_plugin.evaluate import retrieval, zero_shot
from reco_plugin.evaluate.findings import Section, Table
from reco_plugin.evaluate.study.memories import leaks
from reco_plugin.evaluate.study.sections.ablations import ablations
from reco_plugin.evaluate.study.sections.baselines import alternatives, baselines
from reco_plugin.evaluate.study.sections.cases import cases
from reco_plugin.evaluate.study.sections.cost import cost
from reco_plugin.evaluate.study.sections.gate import gate
from reco_plugin.evaluate.study.sections.harm import harm
from reco_plugin.evaluate.study.sections.main import captions, main
from reco_plugin.evaluate.study.study import Study
from reco_plugin.evaluate.task import Task
from reco_plugin.refine import refiner_for_vectors
from reco_plugin.types import Records


@pytest.fixture
def study(make_study: Any, world: Any) -> Study:
    return make_study(world.pairs(), world.labelled())


def rows(table: Table, **cells: Any) -> list[dict[str, Any]]:
    return [row for row in table.rows if all(str(row.get(key)).startswith(cell) for key, cell in cells.items())]


def row(table: Table, **cells: Any) -> dict[str, Any]:
    (found,) = rows(table, **cells)
    return found


def first(task: Task) -> np.ndarray:
    """Whether the nearest candidate of each query is a true one."""
    nearest = (task.queries.vectors @ task.candidates.vectors.T).argmax(1)
    return task.candidates.labels[nearest] == task.queries.labels


def table(section: Section, title: str) -> Table:
    (found,) = [table for table in section.tables if table.title.startswith(title)]
    return found


def test_main_is_zero_shot_on_everything_and_on_the_test_half(study: Study, world: Any) -> None:
    section = main(study)
    expected = zero_shot(study.ours.refiners(study.subject.memory)[0], study.labelled)
    names = {"frozen": "frozen", "image": "images", "text": "prompts", "both": "both"}
    for side, name in names.items():
        found = row(table(section, "all classes: 120 images, 40 classes"), name=name)
        assert (found["top1"], found["top5"]) == (expected[side].top1.mean, expected[side].top5)
        assert found.get("gain", expected["frozen"].gain).mean == expected[side].gain.mean
    half = row(table(section, "test half, among itself: 60 images, 20 classes"), name="frozen")
    test = study.test
    assert half["top1"] == first(test).mean()
    assert section.charts[0].lines[0].y[0] == expected["frozen"].top1.mean


def test_main_tells_seen_from_unseen_and_takes_the_harmonic_mean(make_study: Any, world: Any) -> None:
    unseen = np.arange(40) >= 25
    study = make_study(world.pairs(), replace(world.labelled(), unseen=unseen))
    section = main(study)
    assert [t.title.partition(":")[0] for t in section.tables] == [
        "all classes",
        "seen classes, among themselves",
        "unseen classes, among themselves",
        "test half, among itself",
        "seen and unseen classes among all labels together",
    ]
    whole = study.whole
    hits = first(whole)
    of_unseen = unseen[whole.queries.labels]
    found = row(section.tables[-1], name="frozen")
    seen_share, unseen_share = hits[~of_unseen].mean(), hits[of_unseen].mean()
    assert (found["seen"], found["unseen"]) == (seen_share, unseen_share)
    assert found["harmonic"] == pytest.approx(2 * seen_share * unseen_share / (seen_share + unseen_share))
    assert row(table(section, "unseen"), name="frozen")["top1"] == first(whole.among(unseen)).mean()


def test_other_tables_tell_seen_from_unseen_too(make_study: Any, world: Any) -> None:
    study = make_study(world.pairs(), replace(world.labelled(), unseen=np.arange(40) >= 25))
    ours = study.measure(study.ours)
    of_unseen = study.test.query_unseen
    for found in (
        next(r for r in baselines(study).tables[1].rows if r["name"] == "ours"),
        next(r for r in harm(study).tables[0].rows if r["name"] == "ours"),
    ):
        assert (found["seen"], found["unseen"]) == (ours.top(1)[~of_unseen].mean(), ours.top(1)[of_unseen].mean())
        difference = (ours.top(1) - study.frozen.top(1))[of_unseen].mean()
        assert found["unseen_gain"].mean == pytest.approx(difference)


def test_several_models_are_averaged_and_their_spread_is_shown(study: Study) -> None:
    from reco_plugin.fuse import Fused, NeighbourFuser

    class Nothing(NeighbourFuser):
        name = "nothing"

        def fuse(self, modality: str, vectors: Any, neighbours: Any, calibration: Any) -> Any:
            return Fused(vectors, np.zeros_like(calibration))

    alone = row(main(study).tables[0], name="images")["top1"]
    frozen = row(main(study).tables[0], name="frozen")["top1"]
    fusers = (*study.ours.fusers, Nothing())
    subject = replace(study.subject, ours=replace(study.ours, fusers=fusers), names=("a", "b"))  # type: ignore[arg-type]
    found = row(main(replace(study, subject=subject)).tables[0], name="images")
    assert (found["lowest"], found["highest"]) == (frozen, alone)
    assert found["top1"] == pytest.approx((frozen + alone) / 2)
    assert found["gain"].mean == pytest.approx((alone - frozen) / 2)


def test_retrieval_says_why_it_is_missing_or_what_it_found(study: Study, world: Any) -> None:
    assert "--captions" in captions(study).about
    assert captions(study).tables == ()
    captioned = Captioned("pairs", world.image, world.text, np.arange(len(world.image)))
    section = captions(replace(study, captioned=captioned))
    expected = retrieval(study.ours.refiners(study.subject.memory)[0], captioned)
    assert len(section.tables[0].rows) == len(expected.variants)
    for variant in expected.variants:
        found = row(section.tables[0], direction=variant.direction, refined=variant.refined)
        assert found["R@1"] == variant.recall[1]
        assert found["gain"] == (None if variant.refined == "frozen" else variant.gain)
    kinds = {column.key: column.kind for column in section.tables[0].columns}
    assert (kinds["direction"], kinds["R@10"], kinds["gain"]) == ("text", "percent", "points")


def test_ablations_agree_with_one_another_and_with_what_is_known(study: Study) -> None:
    section = ablations(study)
    modes, size = table(section, "search, fusion, gate"), table(section, "memory size")
    ours = next(r for r in modes.rows if r["name"] == "ours")
    plain = row(modes, name="ours, without gate")
    assert row(modes, name="search uni, fusion cross")["top1"] == plain["top1"]  # the paper's combination is ours
    assert row(modes, name="search uni, fusion uni")["top1"] < plain["top1"]
    knowledge = table(section, "memory before and after")
    assert row(knowledge, name="memory without the test classes: 80 pairs")["top1"] < ours["top1"]
    assert row(knowledge, name="after adding their 80 pairs")["top1"] == ours["top1"]
    assert [r["name"] for r in size.rows] == ["16 pairs", "160 pairs"]
    assert size.rows[0]["top1"] < size.rows[1]["top1"] == ours["top1"]
    each = table(section, "pairs per class")
    assert [r["name"] for r in each.rows] == ["at most 1: 40 pairs", "at most 3: 120 pairs", "all: 160 pairs"]
    assert [line.name for chart in section.charts for line in chart.lines] == ["ours", "without gate", "ours", "ours"]


def test_the_control_is_a_line_of_its_own(study: Study) -> None:
    from reco_plugin.evaluate.methods import WithoutRetrieval

    seen: list[float] = []

    class Noting:
        name = "noting"

        def fuse(self, modality: str, vectors: Any, neighbours: Any, calibration: Any) -> Any:
            from reco_plugin.fuse import Fused

            seen.append(float(np.abs(neighbours.vectors).max() + neighbours.similarity.max()))
            assert (calibration == 1).all()
            return Fused(vectors, calibration)

    with_control = replace(study, subject=replace(study.subject, control=WithoutRetrieval(Noting())))  # type: ignore[arg-type]
    line = row(table(ablations(with_control), "search"), name="trained without retrieval")
    assert line["gain"].mean == 0
    assert set(seen) == {0.0}


def test_baselines_are_compared_with_ours_on_clean_and_noisy_memories(study: Study) -> None:
    section = baselines(study)
    chosen, clean, noisy = section.tables
    assert chosen.rows[0]["dev"] >= chosen.rows[-1]["dev"]
    assert noisy.title == "memory with 50 % wrong captions"
    for part in (clean, noisy):
        ours = {r["sides"]: r for r in part.rows if r["name"] == "ours"}
        kinds = {"mean of neighbours": "both", "kNN label transfer": "images", "text-only enrichment": "prompts"}
        assert set(ours) == set(kinds.values())
        for kind, sides in (kinds | {"logit ensemble": "class scores"}).items():
            found = row(part, name=kind)
            assert found["sides"] == sides
            ours_alike = ours["both" if kind == "logit ensemble" else sides]
            assert found["ahead"].mean == pytest.approx(ours_alike["top1"] - found["top1"])
            assert found["ahead"].low <= found["ahead"].mean <= found["ahead"].high
    assert len({r["top1"] for r in ours.values()}) == len(kinds)  # of the noisy one; with the clean one all are right
    transfer = [row(part, name="kNN")["top1"] for part in (clean, noisy)]
    assert transfer[0] > 0.9  # every neighbour knows the answer
    assert transfer[0] > transfer[1] + 0.1
    enriched = row(clean, name="text-only")["gain"]
    assert enriched.mean < 0.1  # texts alone say nothing about these images


def test_harm_by_the_kind_of_memory(study: Study, world: Any) -> None:
    other = Records(
        [f"o{i}" for i in range(50)],
        world.near(-world.image[:10], 5, 0.5),
        world.near(world.text[:10], 5, 0.5),
        [{"caption": "something else"}] * 50,
    )
    section = harm(replace(study, distractors=other))
    memories, wrong, copies = section.tables
    names = list(dict.fromkeys(str(r["memory"]).partition(":")[0] for r in memories.rows))
    assert names == [
        "memory as it is",
        "empty memory",
        "without the query's class",
        "half of the classes known, queries of that half",
        "none of the classes",
        "irrelevant pairs only",
        "memory and irrelevant pairs",
    ]
    for found in rows(memories, memory="empty"):
        assert tuple(found["gain"]) == (0, 0, 0)  # nothing retrieved: exactly frozen
    no_gate = {name: next(r for r in rows(memories, memory=name) if r["name"] == "ours, no gate") for name in names}
    as_it_is = no_gate["memory as it is"]["gain"].mean
    assert as_it_is > 0.2
    assert no_gate["half of the classes known, queries of that half"]["gain"].mean > 0.2
    assert no_gate["without the query's class"]["gain"].mean < 0.05
    assert no_gate["none of the classes"]["gain"].mean < 0.05
    by_hand = study.measure(replace(study.ours, gate=False), study.memory(other)).top(1).mean()
    assert no_gate["irrelevant pairs only"]["top1"] == by_hand
    assert [r["wrong"] for r in wrong.rows if r["name"] == "ours"] == [0.0, 0.5]
    for name, harmed in (("ours, no gate", 0.1), ("ours", -0.02)):  # a small memory's gate is safe, not bold
        clean, noisy = (r["top1"] for r in wrong.rows if r["name"] == name)
        assert clean > noisy + harmed
    assert copies.title.startswith("leak check: 0 of 60 queries")


def test_alternatives_that_need_classes_are_left_out_where_these_are_guessed(
    study: Study, make_study: Any, world: Any
) -> None:
    chosen, against = alternatives(study).tables
    methods = ["linear adapter", "linear adapter of texts", "X-MoRe", "Tip-Adapter", "label propagation"]
    assert [r["name"] for r in chosen.rows] == [r["name"] for r in against.rows[4:]] == methods
    assert all(r["needs"] for r in chosen.rows)
    ours = {r["sides"]: r for r in against.rows if r["name"] == "ours"}
    assert [r["sides"] for r in against.rows[4:]] == ["both", "prompts", *["class scores"] * 3]
    for found in against.rows[4:]:
        alike = ours["prompts" if found["sides"] == "prompts" else "both"]
        assert found["ahead"].mean == pytest.approx(alike["top1"] - found["top1"])
        assert found["top1"] > study.frozen.top(1).mean()  # every neighbour knows the answer
    bare = world.pairs()
    unknown = alternatives(make_study(Records(bare.ids, bare.image, bare.text, [{}] * len(bare)), world.labelled()))
    assert [r["name"] for r in unknown.tables[0].rows] == methods[:3]
    assert "are left out" in unknown.about


def test_leaving_a_class_out_leaves_none_of_its_pairs(study: Study) -> None:
    left = study.without(study.test.candidates.labels[:3]).store
    captions_left = [str(payload["caption"]) for batch in left.scroll() for payload in batch.payloads]
    assert len(captions_left) == 160 - 3 * 4
    for number in study.test.candidates.labels[:3]:
        name = study.whole.classes[number]
        assert not [caption for caption in captions_left if f" {name}," in caption]


def test_the_leak_check_finds_near_duplicates_and_own_pairs(make_study: Any, world: Any) -> None:
    labelled, pairs = world.labelled(), world.pairs()
    rows = np.arange(0, 120, 10)
    near = world.near(labelled.images[rows], 1, 0.1)  # cosine above 0.99
    texts = labelled.prompts[labelled.labels[rows]]
    copied = Records([f"copy{i}" for i in range(12)], near, texts, [{"caption": "a copy"}] * 12)
    study = make_study(Records.join([pairs, copied], 64), labelled)
    affected = int(np.isin(study.test.rows, rows).sum())
    assert affected > 0
    copies = harm(study).tables[2]
    assert copies.title.startswith(f"leak check: {affected} of 60 queries can retrieve")
    assert copies.title.endswith(f"{affected} pairs in all")
    plain = {str(r["name"]): r for r in copies.rows if str(r["name"]).startswith("ours, no gate")}
    assert len(plain) == 4
    clean = study.memory(study.records.take(~leaks(study.test, study.records).pairs))
    expected = study.measure(replace(study.ours, gate=False), clean)
    assert plain["ours, no gate, near-duplicates taken out"]["top1"] == expected.top(1).mean()
    itself = Records(["own"], labelled.images[study.test.rows[:1]], study.test.candidates.vectors[:1], [{}])
    own = Records.join([pairs, itself], 64)
    assert leaks(study.test, own).queries.tolist() == [True] + [False] * 59
    queries = replace(study.test.queries, own=[("own",), *((str(row),) for row in range(59))])
    hidden = replace(study.test, queries=queries)  # its id is known: it cannot retrieve itself
    assert not leaks(hidden, own).queries.any()
    assert leaks(study.test, own).nearest[0] == pytest.approx(1.0, abs=1e-6)


def test_the_gate_is_explained_and_caution_swept(study: Study) -> None:
    section = gate(study)
    trade, learned, gates = section.tables
    found = {str(r["name"]): r for r in trade.rows}
    assert list(found) == ["0", "0.5", "0.8", "no gate"]
    calibration = study.full.calibration
    assert calibration is not None and calibration.unanswerable < 0.5
    assert found["0.5"]["known"] == study.gain(study.measure(images := replace(study.ours, sides="image")))  # balanced
    assert found["no gate"]["known"] == study.gain(study.measure(replace(images, gate=False)))
    assert found["0.5"]["far_known"] > found["0.5"]["far_unknown"] > 0  # it moves less where there is no answer
    assert found["no gate"]["far_known"] is None
    without = {str(r["memory"]): r for r in harm(study).tables[0].rows if r["name"] == "ours"}
    halves = study.halves()
    assert found["0.5"]["unknown"] == study.gain(study.measure_halves(images, halves))
    assert without["without the query's class"]["gain"] == study.gain(study.measure_halves(study.ours, halves))
    assert section.charts[1].x == tuple(sorted(section.charts[1].x))  # type: ignore[type-var]
    said = {str(r["name"]): str(r["value"]) for r in learned.rows}
    assert said["pairs"] == "160" and said["gates"] == "a gate between a safe one and its own"
    assert said["queries without an answer, as measured"].endswith(" %")
    assert [r["name"] for r in gates.rows] == [
        f"{side} queries, {caution}" for side in ("image", "text") for caution in ("balanced", "bold")
    ]
    assert (applied := calibration.gate("image", "balanced")) is not None
    assert gates.rows[0]["phi0"] == applied.gate.phi[0]


def test_a_memory_that_is_large_enough_tells_its_self_check(make_study: Any, world: Any) -> None:
    study = make_study(world.pairs(each=10), world.labelled())
    calibration = study.full.calibration
    assert calibration is not None and calibration.check is not None
    said = {str(r["name"]): str(r["value"]) for r in gate(study).tables[1].rows}
    assert said["gates"] == "fitted on its own pairs"
    side = calibration.check.image
    assert said["self-check, image queries, answer in the memory"] == f"{side.gain:+.1f} ± {2 * side.error:.1f} points"
    assert {"self-check, text queries, answer hidden", "how well its captions fit (no share of right ones)"} <= set(
        said
    )


def test_cases_of_both_sides_rank_by_exact_scores(make_study: Any, world: Any) -> None:
    study = make_study(world.pairs(), world.labelled(), side="both")
    for case in (found := cases(study)).gains + found.harms:
        if case.rank_after < len(case.after):
            assert [ranked.true for ranked in case.after].index(True) == case.rank_after


def test_cost_has_time_bytes_and_recall(study: Study) -> None:
    section = cost(study)
    time, size, recall = section.tables
    assert [r["name"] for r in time.rows] == ["retrieve", "fuse", "an image, all steps"]  # vectors: nothing to encode
    assert all(float(r["batch1"]) > 0 for r in time.rows)  # type: ignore[arg-type]
    assert row(size, name="both vectors, float32")["bytes"] == 2 * 64 * 4
    assert [r["name"] for r in recall.rows] == ["1", "0.9", "0.5"]
    assert recall.rows[0]["top1"] == study.measure(study.ours).top(1).mean()


def test_cases_show_what_happened(study: Study, make_study: Any, world: Any) -> None:
    section, gains, harms = cases(study)
    assert len(gains) == 4
    assert len({case.name for case in gains}) == 4  # each class once
    assert all(case.rank_after < case.rank_before for case in gains)
    assert all(case.rank_after > case.rank_before for case in harms)
    best = gains[0]
    change = [1 / (1 + case.rank_after) - 1 / (1 + case.rank_before) for case in gains]
    assert change == sorted(change, reverse=True)
    assert [ranked.true for ranked in best.after].index(True) == best.rank_after
    similarity = [ranked.similarity for ranked in best.after]
    assert similarity == sorted(similarity, reverse=True)
    assert len(best.neighbours) == study.ours.k
    assert best.neighbours[0].relevant == (f" {best.name}," in best.neighbours[0].caption)
    assert any(shown.relevant for shown in best.neighbours)
    assert best.picture is None
    assert "60 queries" in section.about
    assert {case.refined for case in gains} == {"both refined"}
    assert "with images and class prompts refined" in section.about
    bare = world.pairs()
    unknown = cases(make_study(Records(bare.ids, bare.image, bare.text, [{}] * len(bare)), world.labelled()))
    assert {shown.relevant for case in unknown.gains for shown in case.neighbours} == {None}


def test_prompts_have_neighbours_too_where_they_are_refined(make_study: Any, world: Any) -> None:
    study = make_study(world.pairs(), world.labelled(), side="both")
    case = cases(study).gains[0]
    assert case.prompt_neighbours[0].relevant
    only = make_study(world.pairs(), world.labelled(), side="text")
    assert all(not case.neighbours and case.prompt_neighbours for case in cases(only).gains)


def test_a_memory_larger_than_the_limit_is_sampled(make_study: Any, world: Any) -> None:
    study = make_study(world.pairs(), world.labelled(), memory_limit=50)
    again = make_study(world.pairs(), world.labelled(), memory_limit=50)
    assert len(study.records) == 50
    assert study.records.ids == again.records.ids
    assert set(study.records.ids) < set(world_ids := [f"p{i}" for i in range(160)])
    assert study.records.ids != world_ids[:50]
    full = refiner_for_vectors([world.pairs()])
    assert study.subject.memory.store.count() == full.memory.store.count() == 160
