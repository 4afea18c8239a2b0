"""benchmarks.acceptance: its committed result holds, is for the jobs of today, and is what docs and reports quote."""

from __future__ import annotations

import copy
import importlib
import json
import sys
from pathlib import Path

import glauber as gl
import pytest
from glauber.testing import accept
from glauber.testing.acceptance.faults import FAULTS

sys.path.insert(0, str(Path(__file__).parents[2]))
acceptance = importlib.import_module("benchmarks.acceptance")

ROOT = Path(acceptance.__file__).parents[1]
RESULT = json.loads((ROOT / "benchmarks" / "results" / "acceptance.json").read_text())


def test_the_committed_result_holds():
    assert {"date", "cpu", "command"} <= set(RESULT)
    assert acceptance.is_as_stated(RESULT)
    assert list(RESULT["faults"]) == [fault.name for fault in FAULTS]
    for found in RESULT["faults"].values():
        assert found["runs"] >= 300
        assert found["interval"] == pytest.approx(acceptance.interval(found["rejected"], found["runs"]))
    for found in (RESULT["ideal"]["at alpha"], RESULT["ideal"]["at 0.01"]):
        assert found["runs"] >= 1000


def test_a_result_can_fail():
    for change in (
        lambda result: result["faults"]["crosstalk 1 %"].update(power=0.98),
        lambda result: result["ideal"]["at alpha"].update(rejected=1),
        lambda result: result["ideal"]["at 0.01"].update(rejected=0),
        lambda result: result["ideal"]["at 0.01"].update(rejected=30),
    ):
        wrong = copy.deepcopy(RESULT)
        change(wrong)
        assert not acceptance.is_as_stated(wrong)


def test_reports_quote_it_for_the_same_jobs_only():
    with gl.open_device("sim://pbit-king-64") as device:
        same, other = accept(device, seed=1), accept(device, samples=2048, seed=1)
    table = json.loads(acceptance.TABLE.read_text())
    assert set(table) == {same.key}, "the jobs have changed: run python -m benchmarks.acceptance again"
    for each in same.power:
        found = RESULT["faults"][each.fault]
        assert table[same.key][each.fault] == [found["rejected"], found["runs"]]
        assert (each.source, each.runs, each.power) == ("measured", found["runs"], found["power"])
    assert {each.source for each in other.power} == {"formula"}


def test_docs_quote_it():
    page = (ROOT / "docs" / "acceptance.md").read_text()
    assert acceptance.for_people(RESULT) in page
    looked_again = {
        fault: found["runs"] - found["looks"]["1"]
        for fault, found in RESULT["faults"].items()
        if found["looks"]["1"] < found["runs"]
    }
    assert looked_again == {"one dropped coupling": 2}
    assert "One look was enough in all runs but two, of dropped couplings." in page


@pytest.mark.slow
def test_the_benchmark_in_small():
    """Every fault is found in all of few runs, and right devices pass."""
    result, table = acceptance.run(8, 40)
    assert all(found["rejected"] == 8 for found in result["faults"].values()), result["faults"]
    assert result["ideal"]["at alpha"]["rejected"] == 0
    assert result["ideal"]["at 0.01"]["rejected"] <= result["ideal"]["at 0.01"]["upper end of the binomial band"]
    assert len(table) == 1
