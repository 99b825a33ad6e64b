"""pytest-xdist keeps the tests of a group or file on one worker: caches and servers that they share are made once."""

from __future__ import annotations

import pytest

from .conftest import ByFile


@pytest.mark.xdist_group("alone")
def test_a_group_is_named_in_the_ids_that_xdist_sorts_by(request: pytest.FixtureRequest) -> None:
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("not run by several workers with --dist loadgroup")
    assert request.node.nodeid.endswith("@alone"), "this pytest and this pytest-xdist do not fit together"


@pytest.mark.parametrize(
    ("test", "unit"),
    [
        ("tests/a.py::test_b", "tests/a.py"),
        ("tests/a.py::TestB::test_c[x::y]", "tests/a.py"),
        ("tests/a.py::test_b[c@d]", "tests/a.py"),
        ("tests/a.py::test_b[c@d]@group", "group"),
    ],
)
def test_what_names_no_group_goes_with_its_file(test: str, unit: str) -> None:
    assert ByFile._split_scope(ByFile.__new__(ByFile), test) == unit
