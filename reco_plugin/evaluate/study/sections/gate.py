"""What does the gate's openness trade? Gain where the memory has the class against harm where it has not."""

from __future__ import annotations

from dataclasses import replace

from ...findings import Cell, Chart, Column, Line, Section, Table
from ...measure import Measured
from ...methods import ScaledTrust
from ..study import Study
from ..tables import gain_chart, gain_line

OPENNESS, QUICK_OPENNESS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0), (0.0, 0.5, 1.0, 2.0)


def gate(study: Study) -> Section:
    """The operating curve."""
    steps = QUICK_OPENNESS if study.config.quick else OPENNESS
    ours = replace(study.ours, gate=True)
    methods = {
        f"{step:g}": replace(ours, fusers=tuple(ScaledTrust(fuser, step) for fuser in ours.fusers)) for step in steps
    }
    methods["no gate"] = replace(study.ours, gate=False)
    known = {name: study.measure(method) for name, method in study.watch(list(methods.items()), "gate: class known")}
    halves = study.halves()
    left_out = {
        name: study.measure_halves(method, halves)
        for name, method in study.watch(list(methods.items()), "gate: class left out")
    }
    rows: list[dict[str, Cell]] = [
        {"name": name, "known": study.gain(known[name]), "unknown": study.gain(left_out[name])} for name in methods
    ]
    table = Table(
        title="",
        columns=(
            Column(key="name", title="openness"),
            Column(key="known", title="gain, memory has the class", kind="points"),
            Column(key="unknown", title="gain, class left out", kind="points"),
        ),
        rows=tuple(rows),
    )
    return Section(
        key="gate",
        title="What does the gate trade?",
        about=(
            "Openness multiplies the trust of every neighbour, up to 1: at 0 nothing is refined, 1 is the gate as it "
            "is, and “no gate” trusts every neighbour fully. A query searches twice: with all pairs in the memory, "
            "and with the pairs of its class left out (the classes in two halves). A good gate gains in the first case "
            "long before it harms in the second. A fusion that does not read trust (the paper's plain layer) moves "
            "at 0 and at “no gate” only."
        ),
        tables=(table,),
        charts=_charts(study, list(methods), known, left_out),
    )


def _charts(
    study: Study, names: list[str], known: dict[str, Measured], unknown: dict[str, Measured]
) -> tuple[Chart, Chart]:
    gains = {
        what: [study.gain(found[name]) for name in names]
        for what, found in (("memory has the class", known), ("class left out", unknown))
    }
    lines = [gain_line(what, found) for what, found in gains.items()]
    by_openness = gain_chart("Gain and harm by openness", "openness of the gate", names, lines)
    points = sorted((100 * (0.0 - u.mean), k.mean) for k, u in zip(*gains.values(), strict=True))
    trade = Chart(
        title="Gain bought by harm: up and to the left is better",
        x_title="harm where the class is left out, points of top-1",
        y_title="gain where the memory has the class, points",
        x=tuple(harm for harm, _ in points),
        lines=(Line(name="ours", y=tuple(gain for _, gain in points)),),
        y_kind="points",
    )
    return by_openness, trade
