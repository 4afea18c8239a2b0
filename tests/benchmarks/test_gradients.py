"""The committed table of gradient estimators says what the estimators' documentation says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra torch: pip install -e '.[torch]'")

import glauber as gl

from benchmarks import gradients

RESULTS = Path(gradients.__file__).parent / "results"


def test_the_committed_figures_show_the_stated_biases_and_no_other():
    result = json.loads((RESULTS / "gradients.json").read_text())
    assert list(result["cases"]) == list(gradients.STATED)
    assert result["n_repeats"] >= 5000
    for case, report in result["cases"].items():
        biased = {row["estimator"] for row in report["rows"] if row["p_value"] <= gradients.ALPHA}
        assert biased == set(gradients.STATED[case])
    assert (RESULTS / "gradients.md").read_text() == gradients.markdown(result)


def test_few_repeats_do_not_show_a_small_bias_and_that_is_said():
    with gl.open_device(gradients.ADDRESS, seed=gradients.SEED) as device:
        probes = gradients.probes(device, 40)
        assert gradients.surprises("linear cost", probes["linear cost"]()) == []
        (said,) = gradients.surprises("restricted Boltzmann machine", probes["restricted Boltzmann machine"]())
    assert said.startswith("restricted Boltzmann machine: cd-10 agrees with the exact gradient")
