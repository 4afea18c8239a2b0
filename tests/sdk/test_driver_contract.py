"""The driver contract passes right devices and finds out every planted wrong one, by the clause that names it."""

from __future__ import annotations

import importlib
import sys

import glauber as gl
import planted_drivers as planted
import pytest
from board_package import write_board_package
from glauber.driver import EnergyCounter
from glauber.testing import DriverContract, run_contract
from glauber.testing.contract import clauses


class TestIdeal(DriverContract):
    """As a driver's author uses it."""

    address = "sim://ideal?seed=1"


class TestChip(DriverContract):
    effort = "quick"

    def open(self):
        return gl.open_device("sim://pbit-king-64", seed=2)


class Impatient(DriverContract):
    """For drivers that are to fail: a second is enough to see that they do not stop."""

    cancel_seconds = 1.0


def examine(make, contract=Impatient, **arguments):
    return run_contract(lambda: gl.Device(make(), seed=2024), contract=contract, **arguments)


def test_every_planted_driver_is_found_out(capsys):
    """Each by the clause that names its fault."""
    survivors = []
    for name, one in planted.PLANTED.items():
        report = examine(one.make, effort="quick", only=[one.clause])
        if not report.failed:
            survivors.append((name, report.results))
    total = len(planted.PLANTED)
    with capsys.disabled():
        sys.stdout.write(f"\ncontract: {total - len(survivors)} of {total} planted drivers found out\n")
    assert not survivors


def test_a_survivor_lowers_the_score(monkeypatch):
    """The test above can fail: a right driver among the planted ones survives."""
    report = examine(planted.Passing, effort="quick", only=["law_of_samples"])
    assert report.passed
    assert not report.failed


@pytest.mark.slow
@pytest.mark.parametrize("name", planted.PLANTED)
def test_a_planted_driver_fails_the_whole_contract(name):
    """Among all clauses, and none of the others keeps the contract from its end."""
    one = planted.PLANTED[name]
    if name in planted.UNSTOPPABLE:
        pytest.skip("the sampler in plain NumPy knows no batches, so that each clause about stopping waits for its job")
    report = examine(one.make)
    assert one.clause in {result.name for result in report.failed}
    assert len(report.results) == len(clauses(DriverContract))


@pytest.mark.slow
def test_the_wrapper_of_the_planted_drivers_passes():
    """So it is the fault that is found, not the wrapper."""
    report = examine(planted.Passing, DriverContract, effort="quick")
    assert report.passed, report.failed
    assert len(report.results) == len(clauses(DriverContract)) >= 30


@pytest.mark.slow
@pytest.mark.parametrize(
    "address",
    [
        "sim://ideal?weight_bits=1",
        "sim://pbit-rbm-512",
        "sim://z1?width=16&height=16",
        "sim://hitachi-asic",
        "sim://kv260",
        "sim://si-2024",
        "sim://cim-2016",
        "sim://borders-2019",
        "sim://dsim-2",
        "sim://probana",
    ],
)
def test_other_devices_pass(address):
    """Folded temperatures, one bit, optimisers, chips of other graphs and unpublished ones."""
    report = run_contract(lambda: gl.open_device(address, seed=3), effort="quick")
    assert not report.failed, report.failed


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_slow_device_passes_with_the_power_that_its_time_buys():
    """The reference in NumPy draws some thousand times more slowly than the C core."""
    report = run_contract(
        lambda: gl.open_device("sim://ideal?body=reference", seed=3), effort="quick", samples=20_000, time_limit=2.0
    )
    assert not report.failed, report.failed
    law = next(result for result in report.results if result.name == "law_of_samples")
    assert law.samples is not None
    assert law.samples < 20_000


def test_statistical_clauses_state_alpha_and_power():
    report = run_contract(lambda: gl.open_device("sim://ideal", seed=3), only=["law_of_samples", "temperature"])
    for result in report.results:
        assert result.alpha == 1e-6
        assert result.p_value is not None
        assert result.samples is not None
        assert result.samples >= 20_000
    assert min(report.results[0].power.values()) > 0.99  # against a dead p-bit, a dropped coupling, all at once
    assert report.results[1].power["beta + 5 %, at beta 0.7"] > 0.99
    assert report.alpha == 2e-6


def test_fewer_samples_state_less_power():
    def power(samples):
        report = run_contract(
            lambda: gl.open_device("sim://pbit-king-64", seed=3), samples=samples, only=["law_of_samples"]
        )
        return report.results[0].power["one dropped coupling"]

    assert power(300) < 0.9 < 0.99 < power(20_000)


def test_what_does_not_apply_is_skipped_with_a_reason():
    report = run_contract(lambda: gl.open_device("sim://pbit-king-64"), only=["law_of_potts_models", "energy_counter"])
    reasons = {result.name: result.reason for result in report.skipped}
    assert "potts_states" in reasons["law_of_potts_models"]
    assert "EnergyCounter" in reasons["energy_counter"]
    assert not report.passed  # nothing was looked at


class Counting(planted.CounterGoesBack):
    _limit = float("inf")


class StandsStill(planted.CounterGoesBack):
    _limit = 0.3


def test_an_energy_counter_that_only_grows_passes():
    def results(make):
        return examine(make, only=["energy_counter"]).results[0]

    assert results(Counting).outcome == "passed"
    assert results(planted.CounterGoesBack).outcome == "failed"
    assert "stands still" in results(StandsStill).reason
    with gl.Device(Counting()) as device:
        assert isinstance(device.energy_counter, EnergyCounter)
    with gl.open_device("sim://ideal") as device:
        assert device.energy_counter is None


@pytest.fixture(scope="module")
def toy_board(tmp_path_factory):
    """The module toy_board.driver of docs/write-a-driver.md."""
    folder = write_board_package(tmp_path_factory.mktemp("toy-board"))
    sys.path.insert(0, str(folder))
    yield importlib.import_module("toy_board.driver")
    sys.path.remove(str(folder))


def test_how_a_driver_takes_a_broken_link(toy_board):
    """Right: DeviceIOError, then a new link. Wrong: the package's own error, no new link, or the answer made up."""

    class Raw(toy_board.ToyDriver):
        def _ask(self, **question):
            try:
                return super()._ask(**question)
            except gl.errors.DeviceIOError as error:
                raise ConnectionResetError("[Errno 104]") from error

    class NoReconnect(toy_board.ToyDriver):
        def close(self):
            self._link.close()

    class MadeUp(toy_board.ToyDriver):
        def _ask(self, **question):
            try:
                return super()._ask(**question)
            except gl.errors.DeviceIOError:
                if question["op"] != "sweep":
                    raise
                return {"samples": [["0000"]] * (question["n"] if question["every"] else 0), "state": ["0000"]}

    def broken(driver):
        report = run_contract(
            lambda: gl.Device(driver("board", lambda transport: transport)),
            open_wrapped=lambda wrap: gl.Device(driver("board", wrap)),
            only=["a_broken_link_is_told"],
        )
        return report.results[0]

    right = broken(toy_board.ToyDriver)
    assert right.outcome == "passed", right.reason
    assert "4 links broken" in right.reason
    assert "ConnectionResetError" in broken(Raw).reason
    assert "open a new one" in broken(NoReconnect).reason
    assert "do not point along their fields" in broken(MadeUp).reason


def test_names_of_clauses_are_checked():
    with pytest.raises(ValueError, match="no such clause: law"):
        run_contract(lambda: gl.open_device("sim://ideal"), only=["law"])


def test_a_contract_without_a_device_says_what_is_missing():
    with pytest.raises(NotImplementedError, match="address"):
        DriverContract().open()
