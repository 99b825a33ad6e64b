"""The arithmetic of docs/measurements/sizing.md, against sums done by hand, and the page against the script."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from benchmarks.sizing import GIB, TIB, Layout, cluster, gpu_ms, items, main, measure, pair_bytes, replicas
from reco_plugin.memory.options import MemoryOptions


def test_a_pair_by_hand() -> None:
    each = pair_bytes(Layout(dimension=512, originals="fp16", payload_bytes=100))
    assert each.originals == 512 * 2 * 2  # numbers, bytes each, modalities
    assert each.index == pytest.approx(2 * 4 * (32 + 16 / 15))  # both modalities; 4 bytes; level 0, and those above
    assert each.ram == each.originals + each.index + 24
    assert each.disk == each.ram + 100


def test_levels_above_add_up_to_m_over_m_less_one() -> None:
    m = 16
    assert m / (m - 1) == pytest.approx(sum(m * m**-level for level in range(1, 50)))


@pytest.mark.parametrize(("copy", "bytes_"), [("none", 0), ("int8", 1024), ("4-bit", 512)])
def test_a_quantised_copy_stands_beside_the_originals(copy: str, bytes_: int) -> None:
    plain, copied = pair_bytes(Layout()), pair_bytes(replace(Layout(), copy=copy))
    assert copied.disk - plain.disk == copied.ram - plain.ram == copied.copy == bytes_


def test_originals_on_disk_leave_the_ram_only() -> None:
    on_ssd = replace(Layout(), originals_in_ram=False)
    assert pair_bytes(Layout()).ram - pair_bytes(on_ssd).ram == 2048
    assert pair_bytes(Layout()).disk == pair_bytes(on_ssd).disk


def test_it_agrees_with_two_gib_for_a_million_and_two_tib_for_a_billion() -> None:
    """2 kB per pair at fp16 and D=512, both modalities: 1 M is 1.9 GiB, 1 B is 1.9 TiB."""
    originals = pair_bytes(Layout(dimension=512)).originals
    assert round(originals * 1e6 / GIB, 1) == 1.9
    assert round(originals * 1e9 / TIB, 1) == 1.9


def test_nodes_by_hand() -> None:
    layout = replace(Layout(), originals_in_ram=False, copy="int8")
    ram = 1e8 * 2 * pair_bytes(layout).ram
    assert cluster(1e8, layout, node_ram_gib=64, node_disk_gib=1e9).nodes == math.ceil(ram / (48 * GIB)) == 6
    small_disks = cluster(1e8, layout, node_ram_gib=1e9, node_disk_gib=100)
    assert small_disks.nodes == math.ceil(small_disks.disk_bytes / (100 * GIB))
    assert cluster(10, layout).nodes == 3
    assert cluster(10, layout, copies=5).nodes == 5, "each copy on a node of its own"


def test_replicas_by_hand() -> None:
    assert replicas(rate=1, item_ms=1) == 2, "one may be replaced while the other serves"
    assert replicas(rate=100, item_ms=70) == 10  # 7 s of work a second, 0.7 s each
    assert replicas(rate=101, item_ms=70) == 11
    assert gpu_ms(gflop=8.8, peak_tflops=121) == pytest.approx(8.8 / 36.3)
    assert items(image_ms=4.0) == {"image": 4.0}


def test_the_pages_have_the_scripts_tables(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    pages = "".join((root / "docs" / "measurements" / name).read_text("utf-8") for name in ("sizing.md", "scale.md"))
    for table in capsys.readouterr().out.strip().split("\n\n"):
        assert table in pages, "run: python -m benchmarks.sizing"


@pytest.mark.parametrize("name", ["sizing.md", "scale.md"])
def test_the_commands_on_the_pages_run(name: str, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (root / "docs" / "measurements" / name).read_text("utf-8")
    commands = re.findall(r"^python -m benchmarks\.sizing(.*?)(?:#.*)?$", page, flags=re.MULTILINE)
    assert len(commands) >= 2
    for words in commands:
        main(words.split())
        assert capsys.readouterr().out.count("|---|") == 5


def test_the_settings_on_the_page_are_settings(root: Path) -> None:
    page = (root / "docs" / "measurements" / "sizing.md").read_text("utf-8")
    named = re.findall(r"(?:RECO_MEMORY_OPTIONS|…)__([A-Z_]+)=(\w+)", page)
    assert len(named) >= 6
    for name, value in named:
        assert MemoryOptions.model_validate({name.lower(): value}).chosen() == {name.lower()}


def test_qdrants_engine_takes_what_is_computed() -> None:
    """With few pairs of many numbers: an index is built from 10 MiB on. In RAM, files take other blocks."""
    layout = Layout(1024, payload_bytes=64, copy="int8")
    with TemporaryDirectory() as folder:
        measured, computed = measure(5_400, layout, Path(folder)), pair_bytes(layout).disk
    assert 0.9 * computed < measured < 1.05 * computed
