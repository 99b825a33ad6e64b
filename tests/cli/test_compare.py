"""Flags of ``reco compare`` that would do nothing."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--cut-off", "0.25"), "--cut-off"),
        (("--compress",), "--compress"),
        (("--template", "query.json", "--compress"), "--compress and --template"),
    ],
)
def test_what_only_an_index_answers_is_refused_beside_runs(run, flags, named):
    given = ("--queries", "q.jsonl", "--run", "plain=a", "--run", "refined=b", *flags)
    result = run("compare", *given)
    assert result.exit_code == 1
    assert f"{named} would do nothing: runs are read as they are" in " ".join(result.output.split())
