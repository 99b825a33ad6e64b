"""What has the memory learned, and what does caution trade? Gain where it has the class, harm where it has not."""

from __future__ import annotations

from dataclasses import replace

from ....calibration import Calibration
from ....calibration.gate import FITTED
from ....types import MODALITIES
from ...findings import Cell, Chart, Column, Line, Section, Table
from ...measure import Measured
from ...methods import Method
from ...results import percent
from ..study import Study
from ..tables import gain_chart

SHARES, QUICK_SHARES = (0.0, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8), (0.0, 0.5, 0.8)
_FEATURES = ("strength", "ln knowledge", "familiarity", "ln reliability", "best similarity", "its lead")
_NO_GATE = "no gate"


def gate(study: Study) -> Section:
    """The learned gate, and its operating curve."""
    closed = Method((None,), study.ours.k, gate=True, sides="image")
    shares = QUICK_SHARES if study.config.quick else SHARES
    methods = {f"{share:g}": replace(closed, caution=share) for share in shares}
    methods[_NO_GATE] = replace(closed, gate=False)
    known = {name: study.measure(method) for name, method in study.watch(list(methods.items()), "gate: class known")}
    halves = study.halves()
    left_out = {
        name: study.measure_halves(method, halves)
        for name, method in study.watch(list(methods.items()), "gate: class left out")
    }
    rows: list[dict[str, Cell]] = [
        {
            "name": name,
            "known": study.gain(known[name]),
            "unknown": study.gain(left_out[name]),
            "far_known": _strength(known[name]),
            "far_unknown": _strength(left_out[name]),
        }
        for name in methods
    ]
    trade = Table(
        title="image queries, by the share assumed to have no answer",
        columns=(
            Column(key="name", title="share"),
            Column(key="known", title="gain, memory has the class", kind="points"),
            Column(key="unknown", title="gain, class left out", kind="points"),
            Column(key="far_known", title="length of the move, class known", kind="number"),
            Column(key="far_unknown", title="length of the move, class left out", kind="number"),
        ),
        rows=tuple(rows),
    )
    calibration = study.full.calibration
    return Section(
        key="gate",
        title="What has the memory learned, and what does caution trade?",
        about=(
            "The closed form moves a query along the whitened mean of what was found, as far as the memory's own "
            "held-out pairs justify: the gate's strength is log-linear in six features of the neighbours. A query "
            "alone cannot tell whether its class is in the memory, so a share of queries is assumed to have no answer; "
            "that is the caution, and the curve is what it trades. A query searches twice: with all pairs in the "
            "memory, and with the pairs of its class left out (the classes in two halves). “No gate” adds the "
            "neighbours' mean as it is. The self-check is right in sign, not in size, and blind to an irrelevant "
            "memory."
        ),
        tables=(trade, *([] if calibration is None else [_state(calibration), _gates(calibration)])),
        charts=_charts(study, list(methods), known, left_out),
    )


def _strength(found: Measured) -> float | None:
    return None if found.coverage is None else found.coverage.strength


def _state(calibration: Calibration) -> Table:
    """What was learned, in a table of two columns."""
    check = calibration.check
    said: dict[str, str] = {
        "pairs": f"{calibration.pairs:,}",
        "gates": calibration.whose_gates,
        "queries without an answer, as measured": f"{percent(calibration.unanswerable)} %",
        "how well its captions fit (no share of right ones)": f"{_fit(calibration):.2f} of 1",
        "cosine from which two captions mean the same": f"{calibration.same_caption:.2f}",
    }
    said["does the memory hold the answer?"] = calibration.tells_presence
    if calibration.reason:
        said["stays plain, since"] = calibration.reason
    for modality, side in ((modality, check.side(modality)) for modality in MODALITIES if check):
        said[f"self-check, {modality} queries, answer in the memory"] = _points(side.gain, side.error)
        said[f"self-check, {modality} queries, answer hidden"] = _points(side.hidden, side.hidden_error)
    if check is not None:
        said |= {f"self-check, {m}s among {m}s": check.among(m) for m in MODALITIES}
    rows: tuple[dict[str, Cell], ...] = tuple({"name": name, "value": value} for name, value in said.items())
    columns = (Column(key="name", title="the memory has learned"), Column(key="value", title=""))
    return Table(title="what the memory has learned", columns=columns, rows=rows)


def _fit(calibration: Calibration) -> float:
    return 1.0 - (calibration.reliability.wrong if calibration.check is None else calibration.check.wrong)


def _points(gain: float, error: float) -> str:
    return f"{gain:+.1f} ± {2 * error:.1f} points"


def _gates(calibration: Calibration) -> Table:
    """The coefficients of every gate."""
    rows: list[dict[str, Cell]] = []
    for modality in MODALITIES:
        for caution in FITTED:
            if (fitted := calibration.sides[modality].gates.get(caution)) is not None:
                cells: dict[str, Cell] = {
                    "name": f"{modality} queries, {caution}",
                    "share": calibration.shares[caution],
                }
                cells |= {f"phi{place}": value for place, value in enumerate(fitted.phi.tolist())}
                rows.append(cells | {"tau": fitted.sharpness, "kappa": fitted.temperature, "gain": fitted.gain})
    columns = [Column(key="name", title="gate"), Column(key="share", title="no answer assumed", kind="percent")]
    columns += [Column(key=f"phi{place}", title=name, kind="number") for place, name in enumerate(_FEATURES)]
    columns += [
        Column(key="tau", title="ln τ, sharpness of the neighbours' shares", kind="number"),
        Column(key="kappa", title="ln κ, of the scores in the fit", kind="number"),
        Column(key="gain", title="loss saved, standard errors", kind="number"),
    ]
    return Table(title="its gates: coefficients φ of the features", columns=tuple(columns), rows=tuple(rows))


def _charts(
    study: Study, names: list[str], known: dict[str, Measured], unknown: dict[str, Measured]
) -> tuple[Chart, Chart]:
    gains = {
        what: [study.gain(found[name]) for name in names]
        for what, found in (("memory has the class", known), ("class left out", unknown))
    }
    lines = [Line.of(what, found) for what, found in gains.items()]
    by_share = gain_chart("Gain and harm by caution", "share of queries assumed to have no answer", names, lines)
    points = sorted((100 * (0.0 - u.mean), k.mean) for k, u in zip(*gains.values(), strict=True))
    trade = Chart(
        title="Gain bought by harm: up and to the left is better",
        x_title="harm where the class is left out, points of top-1",
        y_title="gain where the memory has the class, points",
        x=tuple(harm for harm, _ in points),
        lines=(Line(name="closed form", y=tuple(gain for _, gain in points)),),
        y_kind="points",
    )
    return by_share, trade
