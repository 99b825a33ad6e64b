"""pytest-xdist keeps the tests of a group on one worker: caches and servers that they share are made once."""

from __future__ import annotations

import pytest


@pytest.mark.xdist_group("alone")
def test_a_group_is_named_in_the_ids_that_xdist_sorts_by(request: pytest.FixtureRequest) -> None:
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("not run by several workers with --dist loadgroup")
    assert request.node.nodeid.endswith("@alone"), "this pytest and this pytest-xdist do not fit together"
