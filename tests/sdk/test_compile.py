"""Programs: their keys, their integer step, and what the report says of rounding, job fields included."""

from __future__ import annotations

import itertools
from dataclasses import replace

import glauber as gl
import numpy as np
import pytest
from glauber.catalogue import load_spec
from glauber.compile import compile_program, step_of
from glauber.compile.quantise import BLOCK, exact_step, largest, make_report, to_steps, with_fields
from glauber.errors import GlauberError, InvalidModelError, ModelNotSupportedError
from glauber_simulator.factory import with_parameters

IDEAL = load_spec("ideal")
CHAIN = gl.IsingModel([0.25, 0.0, -0.5], [(0, 1), (1, 2)], [1.0, -0.75])


def with_bits(bits):
    return with_parameters(IDEAL, {"weight_bits": str(bits)})


def program(model, spec=IDEAL, **kwargs):
    return compile_program(model, step_of(model, spec, **kwargs))


def test_a_coupling_per_edge_and_a_shared_table_of_the_same_numbers_have_keys_of_their_own():
    """q = 2 and four edges: (4,) and (2, 2) hold the same bytes, and mean different models."""
    edges = [(0, 1), (1, 2), (2, 3), (3, 4)]
    numbers = np.array([1.0, 2.0, 3.0, 4.0])
    per_edge = gl.PottsModel(np.zeros((5, 2)), edges, numbers)
    table = gl.PottsModel(np.zeros((5, 2)), edges, numbers.reshape(2, 2))
    assert per_edge.graph_key == table.graph_key
    assert per_edge.key != table.key
    assert program(per_edge).key != program(table).key
    with gl.open_device("sim://ideal?seed=1") as device:
        schedule = gl.SamplingSchedule(n_samples=50, n_chains=4)
        first, second, again = (device.submit(m, schedule, seed=3).result(30) for m in (per_edge, table, per_edge))
    assert not np.array_equal(first.states, second.states)
    np.testing.assert_array_equal(first.states, again.states)


def test_an_ising_and_a_potts_program_never_share_a_key():
    ising = gl.IsingModel(np.zeros(2), [(0, 1)], [1.0])
    potts = gl.PottsModel(np.zeros((2, 2)), [(0, 1)], [1.0])
    assert program(ising).key != program(potts).key


@pytest.mark.parametrize("change", ["fields", "couplings", "offset"])
def test_the_program_key_follows_every_coefficient(change):
    values = {"fields": CHAIN.fields, "couplings": CHAIN.couplings, "offset": 0.0}
    values[change] = values[change] + 0.25
    other = gl.IsingModel(values["fields"], CHAIN.edges, values["couplings"], values["offset"])
    assert program(CHAIN).key != program(other).key


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, 3 * BLOCK + 5])
@pytest.mark.parametrize("multiple", [1, 3])
def test_numbers_are_rounded_and_reported_on_block_by_block(size, multiple):
    rng = np.random.default_rng(size)
    values = rng.normal(size=(size, 2))
    steps = to_steps(values, 0.25, multiple, 2)
    np.testing.assert_array_equal(steps, np.clip(np.rint(values / (0.25 * multiple)), -2, 2) * multiple)
    assert steps.dtype == np.int32
    step = step_of(CHAIN, IDEAL)
    report = make_report([(values, steps), (values[:1], steps[:1])], replace(step, step=0.25))
    error = np.append(steps, steps[:1], axis=0) * 0.25 - np.append(values, values[:1], axis=0)
    assert report.largest_error == np.abs(error).max(initial=0.0)
    assert report.rms_error == pytest.approx(np.sqrt((error**2).mean()) if size else 0.0)
    assert report.exact is (size == 0)
    both = np.append(values, values[:1], axis=0)
    assert report.beta_factor == pytest.approx((both * (both + error)).sum() / (both**2).sum() if size else 1.0)
    exact = replace(report, largest_error=0.0, exact=True)
    assert with_fields(exact, steps * 0.25, steps) == exact
    off = steps * 0.25
    if size:
        off[-1, -1] += 0.1  # the last of the last block
        worse = with_fields(exact, off, steps)
        assert worse.exact is False
        assert worse.largest_error == pytest.approx(0.1)


@pytest.mark.parametrize("at", [0, BLOCK, 2 * BLOCK + 1])
def test_no_block_hides_what_is_out_of_range(at):
    values = np.zeros(2 * BLOCK + 2)
    values[at] = -(2.0**30)
    assert largest(values) == 2.0**30
    with pytest.raises(ModelNotSupportedError, match=r"limit is 2\^30"):
        to_steps(values, 1.0, 1, None)
    for wrong in (np.nan, np.inf, -np.inf):
        fields = np.zeros(len(values))
        fields[at] = wrong
        model = gl.IsingModel(np.zeros(len(values)), np.zeros((0, 2), int), [])
        with pytest.raises(InvalidModelError, match=rf"fields\[0, {at}\] is {wrong}; every field must be finite"):
            gl.JobRequest(model, fields=fields)


def test_one_bit_keeps_signs_and_two_bits_keep_zeros():
    model = CHAIN.replace(fields=np.zeros(3), couplings=[1.0, -0.2])
    one, two = program(model, with_bits(1)), program(model, with_bits(2))
    np.testing.assert_allclose(one.as_model().couplings, [1.0, -1.0])
    np.testing.assert_allclose(two.as_model().couplings, [1.0, 0.0])
    assert one.quantisation.largest_error == pytest.approx(0.8)
    assert two.quantisation.largest_error == pytest.approx(0.2)


@pytest.mark.parametrize("bits", [3, 8, 16])
def test_no_coefficient_is_off_by_more_than_half_a_step(bits):
    rng = np.random.default_rng(bits)
    pairs = list(itertools.combinations(range(9), 2))
    model = gl.IsingModel(rng.normal(size=9), pairs, rng.normal(size=len(pairs)))
    held = program(model, with_bits(bits))
    report, back = held.quantisation, held.as_model()
    errors = np.concatenate([back.couplings - model.couplings, back.fields - model.fields])
    assert np.abs(errors).max() <= report.step / 2 * (1 + 1e-12)
    assert report.largest_error == pytest.approx(np.abs(errors).max())
    assert report.rms_error == pytest.approx(np.sqrt((errors**2).mean()))
    assert not report.exact


def test_common_multiples_are_exact_whatever_their_unit():
    for unit in (1.0, 0.1, 1e-200, 1e200):
        report = program(CHAIN.replace(fields=CHAIN.fields * unit, couplings=CHAIN.couplings * unit)).quantisation
        assert report.exact, unit


def test_job_fields_take_part_in_the_step_and_in_the_report():
    with gl.open_device("sim://ideal?weight_bits=8&seed=1") as device:
        schedule = gl.SamplingSchedule(n_samples=5, n_chains=2)
        plain = device.submit(CHAIN, schedule).result(30).provenance.quantisation
        fine = device.submit(CHAIN, schedule, fields=[0.125, 0.0, 0.0]).result(30).provenance.quantisation
        odd = device.submit(CHAIN, schedule, fields=[np.pi / 10, 0.0, 0.0]).result(30)
    assert plain.exact
    assert fine.exact  # a step of 1/8 holds model and job
    report = odd.provenance.quantisation
    assert not report.exact
    assert report.largest_error >= abs(odd.held_fields[0, 0] - np.pi / 10) > 0
    np.testing.assert_allclose(
        odd.programmed_energies,
        -(odd.states * odd.held_fields[:, None]).sum(axis=-1)
        - (odd.states[..., :2] * odd.states[..., 1:]) @ odd.program.as_model().couplings,
    )


def test_fields_alone_decide_about_the_step_of_a_model_without_edges():
    model = gl.IsingModel(np.zeros(2), [], [])
    with gl.open_device("sim://ideal?seed=1") as device:
        schedule = gl.SamplingSchedule(n_samples=1, n_chains=20_000)
        samples = device.submit(model, schedule, fields=[0.3, -1.1]).result(30)
    expected = np.tanh([0.3, -1.1])
    error = np.sqrt((1 - expected**2) / 20_000)
    assert (np.abs(samples.states[:, 0].mean(axis=0) - expected) < 5.03 * error).all()  # alpha 1e-6 over both


def test_sums_that_could_overflow_are_refused():
    n = 2**15
    star = gl.IsingModel.from_edges([(0, k, 1.0 if k < n - 1 else 3e-5) for k in range(1, n)])
    with pytest.raises(GlauberError, match=r"2\^30"):
        program(star, with_bits(31))


def test_a_coupling_that_is_lost_is_not_exact_however_small():
    report = program(gl.IsingModel([1e9, 0.0], [(0, 1)], [1e-9])).quantisation
    assert not report.exact
    assert report.largest_error == 1e-9


@pytest.mark.parametrize("multiples", [(1, 2, 3), (6, 10, 15), (1, 30000), (7, 11, 13, 17), (2**20, 2**20 + 1)])
@pytest.mark.parametrize("unit", [1.0, 0.1, 1 / 3, np.pi, 1e-7, 123.456])
def test_the_step_is_the_greatest_common_divisor(multiples, unit):
    assert exact_step(unit * np.array(multiples, float), 2**30) == pytest.approx(unit, rel=1e-9)


def test_numbers_without_a_common_divisor_have_no_exact_step():
    rng = np.random.default_rng(0)
    for _ in range(200):
        assert exact_step(rng.normal(size=3), 2**15) is None
