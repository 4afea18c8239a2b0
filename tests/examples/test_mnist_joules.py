"""Operations against counts by brute force and the SDK's own; joules against the catalogue; a metered run on a tree."""

from __future__ import annotations

import json
import time
from dataclasses import asdict

import glauber as gl
import networkx as nx
import numpy as np
import pytest
from glauber.catalogue import load_spec
from glauber.errors import DeviceNotFoundError, InvalidModelError
from glauber.testing import KnownPower, RaplTree

from examples.mnist_ebm import joules
from examples.mnist_ebm.claim import reading


@pytest.mark.parametrize("degree", [4, 8])
def test_grid_operations_are_those_of_a_sweep_done_by_hand(degree):
    side, q = 5, 3
    graph = nx.grid_2d_graph(side, side)
    if degree == 8:
        graph.add_edges_from(((i, j), (i + 1, j + 1)) for i in range(side - 1) for j in range(side - 1))
        graph.add_edges_from(((i + 1, j), (i, j + 1)) for i in range(side - 1) for j in range(side - 1))
    assert joules.grid_edges(side, degree) == graph.number_of_edges()
    additions = comparisons = states = rows = 0
    for site in graph:
        additions += q * (1 + graph.degree(site))  # a bias and an entry a neighbour, for each level
        comparisons += q - 1
        states += graph.degree(site) + 1
        rows += graph.degree(site) * q * 4
    work = joules.grid_sweep(side, q, degree, tied=False)
    assert (work.multiply_adds, work.comparisons, work.updates) == (additions, comparisons, side**2)
    assert work.bytes_moved == states + rows + 4 * q * side**2
    assert joules.grid_sweep(side, q, degree, tied=True).bytes_moved == states + 4 * q * side**2
    many = joules.grid_sweep(side, q, degree, tied=False, chains=100)
    assert many.bytes_moved == pytest.approx(states + (rows * q + 4 * q * side**2) / 100)


def test_dense_operations_are_those_of_their_matrices():
    work = joules.rbm_sweep(6, 3)
    assert work.multiply_adds == np.ones((3, 6)).size + np.ones((6, 3)).size + 9
    fields = joules.chain_fields(6, 3)
    assert (fields.updates, fields.multiply_adds) == (0, 6 * 9 + 9)
    image = joules.vae_sample(4, 8, 2)
    assert image.multiply_adds == (12 * 8 + 8) + (8 * 8 + 8) + (8 * 16 + 16)
    assert image.random_bits == 32 * (2 + 16)
    with pytest.raises(InvalidModelError, match="4 or 8"):
        joules.grid_edges(5, 6)


def test_a_job_is_counted_as_the_sdk_counts_it():
    rng = np.random.default_rng(0)
    edges = [(i, 6 + j) for i in range(6) for j in range(3)]
    model = gl.IsingModel(rng.normal(size=9), edges, rng.normal(size=18))
    schedule = gl.SamplingSchedule(n_samples=50, n_chains=1, n_warmup=0, sweeps_per_sample=20)
    with gl.open_device("sim://ideal") as device:
        theirs = device.estimate(model, schedule).energy.operations
    mine = joules.ChipJob("machine", 9, 9, 27, 9, sweeps=20, samples=50).operations
    assert theirs == mine


def test_a_chain_writes_its_fields_for_every_sample():
    one = joules.ChipJob("machine", 20, 12, 100, 12, sweeps=5, samples=10).operations
    four = joules.ChipJob("chain", 20, 12, 100, 12, sweeps=5, steps=4, samples=10).operations
    assert four.updates == 4 * one.updates
    assert one.nodes_written == 20
    assert four.nodes_written == 4 * 20 + 4 * 10 * 20


def test_joules_are_counts_times_published_figures():
    job = joules.ChipJob("machine", 1000, 784, 5000, 4, sweeps=100, samples=50)
    kv260 = joules.on_chip(job, "kv260")
    costs = load_spec("kv260").costs
    assert kv260.sweep_joules == pytest.approx(1000 * costs.joules_per_update.best)
    assert kv260.parts["read"] == pytest.approx(784 * costs.joules_per_read.best)
    assert kv260.parts["program"] == pytest.approx(1000 * costs.joules_per_write.best / 50)
    assert kv260.joules == pytest.approx(sum(part for part in kv260.parts.values() if part is not None))
    assert kv260.standard_uncertainty > 0
    assert (kv260.provenance, kv260.boundaries, kv260.lacks) == ("measured", ("board",), ())
    paper = joules.on_chip(job, "dtm-l70")
    assert paper.joules == pytest.approx(100 * 1000 * 2e-15)
    assert paper.provenance == "model"
    assert {"program", "read", "idle"} <= set(paper.missing)
    assert paper.parts["read"] is None
    assert paper.landauer_joules == pytest.approx(1e5 * 1.380649e-23 * 300 * np.log(2))
    assert paper.reflash_seconds is None
    assert joules.on_chip(job, "z1").reflash_seconds == pytest.approx(1 / 50)  # one loading at 1 Hz, 50 samples
    large = joules.on_chip(joules.ChipJob("large", 2000, 784, 5000, 500, sweeps=1), "kv260")
    assert large.lacks == ("2,000 p-bits (it has 1,024)", "500 couplings of a p-bit (it has 4)")
    with pytest.raises(DeviceNotFoundError, match="kv270"):
        joules.on_chip(job, "kv270")


def test_the_roofline_is_the_longer_of_bytes_and_operations():
    facts = load_spec(joules.GPU).facts
    alone, many = joules.rbm_sweep(784, 500), joules.rbm_sweep(784, 500, chains=10_000)
    watts = load_spec(joules.GPU).costs.power_watts.best
    by_bytes = joules.on_gpu("machine", alone.times(100), 100)
    assert by_bytes.joules == pytest.approx(watts * 100 * alone.bytes_moved / facts["memory_bandwidth"].best)
    peak = facts["fp32_cores"].best * facts["boost_clock"].best
    by_operations = joules.on_gpu("machine", many.times(100), 100)
    assert by_operations.joules == pytest.approx(watts * 100 * many.multiply_adds / peak)
    assert by_operations.sweep_joules == pytest.approx(by_operations.joules / 100)
    with pytest.raises(InvalidModelError, match="h100-sxm5"):
        joules.on_gpu("machine", alone, 1, "h100-sxm5")


def test_a_metered_run_has_the_joules_of_its_counter(tmp_path):
    with RaplTree(tmp_path, [KnownPower(base=40.0)]):
        found = joules.metered(lambda: time.sleep(0.4), 20, f"rapl://{tmp_path}")
    assert found.joules == pytest.approx(40.0 * found.seconds, rel=0.1)
    assert found.standard_uncertainty is not None
    assert 0 < found.standard_uncertainty < 0.1 * found.joules
    assert found.why_not == ""
    assert "RAPL" in found.meter


def test_without_a_meter_it_runs_and_says_so(tmp_path):
    ran = []
    found = joules.metered(lambda: ran.append(1), 10, f"rapl://{tmp_path}")
    assert ran == [1]
    assert found.joules is None
    assert "no RAPL counter" in found.why_not


def test_the_reading_quotes_the_catalogue_and_its_quotients(tmp_path):
    text = reading()
    assert "163 updates of each" in text  # 1.6 nJ / (4,900 x 2 fJ)
    assert "21,664 updates" in text  # 153.6 pJ / 7.09 fJ
    assert "4,680 times less" in text  # 40.9 uJ / 8.74 nJ
    assert "with the FPGA 139 times" in text  # 40.9 uJ / 294.5 nJ
    assert "36,050 times the modelled cell" in text  # 72.1 pJ / 2 fJ
    for source in ("2510.23972", "2608.01615", "ferrotherm"):
        assert source in text
    job = joules.ChipJob("machine", 1000, 784, 5000, 4, sweeps=100)
    found = [joules.on_chip(job, name) for name in joules.CHIPS]
    found.append(joules.on_gpu("machine", joules.rbm_sweep(784, 216).times(100), 100))
    joules.draw(tmp_path / "joules.png", found)
    assert (tmp_path / "joules.png").stat().st_size > 10_000
    assert len(json.loads(json.dumps([asdict(one) for one in found]))) == 4
