"""The battery of statistical checks passes right samplers and fails every wrong one: negative controls.

The checks, their alphas and sample sizes are in faulty.py. Here stands their power: the probability that the battery's
chi-square notices a fault of the smallest named size, from exact laws and the noncentral chi-square distribution.
"""

from __future__ import annotations

import importlib
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from glauber.catalogue import load_spec
from glauber.compile import compile_program, step_of
from glauber.testing import ExactLaw
from laws import POWER, Law, power_against

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode does not; benchmarks.mutation_score does too
faulty: Any = importlib.import_module("faulty")

PROGRAM: Any = compile_program(faulty.MODEL, step_of(faulty.MODEL, faulty.spec()))


@pytest.mark.parametrize("name", faulty.RIGHT)
def test_a_right_sampler_passes(name):
    verdicts = faulty.examine(faulty.RIGHT[name]())
    assert len(verdicts) == len(faulty.BATTERY)
    assert all(check.passed for check in verdicts), verdicts


@pytest.mark.parametrize("name", faulty.FAULTS)
def test_a_wrong_sampler_is_found_out(name):
    verdicts = faulty.examine(faulty.FAULTS[name](), stop_at_first=True)
    assert not verdicts[-1].passed, f"{name} passed all {len(verdicts)} checks: {verdicts}"


def test_the_named_faults_are_all_there():
    """Those of the statistics standard, each under its name."""
    named = {
        "always up", "beta off by 5 %", "neighbours updated together", "seed ignored", "best state for the last",
        "one dead p-bit of 12", "1-bit DAC", "random numbers used twice", "neighbours share random numbers",
        "one dropped coupling",
    }  # fmt: skip
    assert named <= set(faulty.FAULTS)


def test_the_score_counts_what_was_killed(monkeypatch):
    """The score is of the faults, not a constant: a right sampler among them lowers it."""
    monkeypatch.setattr(faulty, "BATTERY", faulty.BATTERY[:1])
    monkeypatch.setattr(faulty, "FAULTS", {"none": faulty.Wrapped, "not reproducible": faulty.Entropy})
    verdicts = faulty.mutation_score()
    assert [(verdict.fault, len(verdict.killed_by)) for verdict in verdicts] == [("none", 0), ("not reproducible", 1)]


@pytest.mark.slow
def test_the_script_prints_the_whole_table(tmp_path):
    """Every check on every fault, as CI runs it."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "benchmarks.mutation_score", "--json", str(tmp_path / "score.json")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "score.json").read_text())
    assert result["killed"] == result["total"] == len(faulty.FAULTS)
    for name in faulty.FAULTS:
        assert name in done.stdout
        assert result["faults"][name]


# Power


def law_of(model: Any, beta: float, clamp: dict[int, int]) -> Law:
    """Over all 4,096 states, 0 where the clamp forbids one."""
    held = ExactLaw(model, beta, tuple(clamp.items()))
    law = np.zeros(2**model.n_sites)
    law[(held.states + 1) // 2 @ (2 ** np.arange(model.n_sites - 1, -1, -1))] = held.probabilities
    return law


@pytest.fixture(scope="module")
def programmed() -> Any:
    return PROGRAM.as_model()


def test_the_law_checks_have_power(programmed):
    """Above 0.99 against beta + 5 %, *any* dead p-bit at either value and *any* dropped coupling, at N_SAMPLES."""
    right, n, beta = law_of(programmed, faulty.BETA, {}), faulty.N_SAMPLES, faulty.BETA
    powers = {"beta + 5 %": power_against(law_of(programmed, 1.05 * beta, {}), right, n)}
    for site, value in itertools.product(range(12), (-1, 1)):
        powers[f"p-bit {site} dead at {value}"] = power_against(law_of(programmed, beta, {site: value}), right, n)
    for edge in range(programmed.n_edges):
        couplings = programmed.couplings.copy()
        couplings[edge] = 0.0
        powers[f"coupling {edge} dropped"] = power_against(
            law_of(programmed.replace(couplings=couplings), beta, {}), right, n
        )
    assert len(powers) == 1 + 24 + 20
    assert min(powers.values()) > POWER, min(powers.items(), key=lambda item: item[1])
    # and none without a fault, beyond alpha itself
    assert power_against(right, right, n) == pytest.approx(faulty.ALPHA, rel=1e-6)


def test_the_samples_of_the_law_checks_are_independent_enough(programmed):
    """After WARMUP sweeps the exact law cannot be told from equilibrium, and THIN sweeps leave below 1e-3 of anything.

    The law is swept exactly, site by site in the program's order; what shrinks slowest of a random disturbance is the
    kernel's second eigenvalue. Correlations of that size stretch Pearson's statistic by 1.002, one unit of about 700.
    """
    law = ExactLaw(programmed, faulty.BETA)
    p, order = law.probabilities, PROGRAM.order.site.tolist()
    energies = law.energies.reshape((2,) * 12)

    def swept(start: Law, sweeps: int) -> Law:
        q = start.reshape((2,) * 12)
        for _ in range(sweeps):
            for site in order:
                weight = np.exp(-faulty.BETA * (energies - energies.min(axis=site, keepdims=True)))
                q = q.sum(axis=site, keepdims=True) * weight / weight.sum(axis=site, keepdims=True)
        return np.asarray(q.ravel())

    warm = swept(np.full(4096, 1 / 4096), faulty.WARMUP)
    assert faulty.N_SAMPLES * float(((warm - p) ** 2 / p).sum()) < 0.01
    disturbed = p * np.random.default_rng(1).normal(size=4096)
    disturbed -= p * disturbed.sum()
    early, late = swept(disturbed, 20), swept(disturbed, 40)
    rate = float((np.abs(late).sum() / np.abs(early).sum()) ** (1 / 20))
    assert rate**faulty.THIN < 1e-3


def test_the_device_claims_eight_bits_and_the_model_needs_them():
    """Else a 1-bit DAC would be no fault: the couplings take many sizes on the programmed step."""
    assert faulty.spec().coefficients.weight_bits == 8
    assert load_spec("ideal").coefficients.weight_bits != 8
    assert len(np.unique(np.abs(PROGRAM.edge_weight))) > 10
