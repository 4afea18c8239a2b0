"""A window's thread, and how often a reading is updated: with readings and a clock of the tests' own."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from glauber.errors import DeviceIOError
from glauber_drivers.meters import polling
from glauber_drivers.meters.polling import PERIOD_UPDATES, Polled, update_period


class Script:
    """Gives these readings one after another, then the last again and again; `done` once all were given."""

    def __init__(self, readings):
        self._readings = list(readings)
        self.done = threading.Event()

    def __call__(self):
        reading = self._readings[0]
        if len(self._readings) > 1:
            self._readings.pop(0)
        else:
            self.done.set()
        if isinstance(reading, Exception):
            raise reading
        return float(reading)


def trace_of(readings, *, whole):
    script = Script(readings)
    window = Polled(script, 1e-4, "a script", whole=whole)
    assert script.done.wait(10)
    return window, window.stop()


def test_of_a_run_of_equal_readings_the_first_and_the_last_are_kept():
    readings = [1, 1, 1, 1, 2, 3, 3, 3, 4, 4]
    window, trace = trace_of(readings, whole=False)
    assert trace.readings.tolist() == [1, 1, 2, 3, 3, 4, 4]
    assert (np.diff(trace.times) > 0).all()
    assert window.stop() is trace
    _, whole = trace_of(readings, whole=True)
    assert whole.readings.tolist()[: len(readings)] == readings


def test_an_error_between_two_good_readings_is_not_forgotten():
    script = Script([1, 2, DeviceIOError("gone for a moment"), 3])
    window = Polled(script, 1e-4, "a script", whole=False)
    window._thread.join(10)  # ended by the error
    assert not window._thread.is_alive()
    for _ in range(2):
        with pytest.raises(DeviceIOError, match="gone for a moment"):
            window.stop()


def test_an_instrument_that_hangs_is_given_up(monkeypatch):
    monkeypatch.setattr(polling, "STUCK_SECONDS", 0.05)
    hanging, asked = threading.Event(), threading.Event()
    calls = iter(range(10))

    def read():
        if next(calls):
            asked.set()
            hanging.wait(10)
        return 1.0

    window = Polled(read, 1e-4, "a slow one", whole=False)
    assert asked.wait(10)
    with pytest.raises(DeviceIOError, match=r"a slow one has not answered for 0\.05 s"):
        window.stop()
    hanging.set()
    window._thread.join(10)


def test_a_thread_that_is_left_open_is_a_daemon():
    window = Polled(lambda: 1.0, 0.01, "a left one", whole=False)
    assert window._thread.daemon
    assert not window.ended
    window.abandon(DeviceIOError("closed"))
    assert window.ended
    with pytest.raises(DeviceIOError, match="closed"):
        window.stop()


class Clock:
    """Time that passes in sleep only."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(polling.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(polling.time, "sleep", self.sleep)

    def sleep(self, seconds):
        self.now += seconds


@pytest.mark.parametrize("period", [0.01, 0.1, 0.3])
def test_the_period_is_the_mean_between_updates(monkeypatch, period):
    clock = Clock(monkeypatch)
    found = update_period(lambda: clock.now // period, 3.0)
    assert found == pytest.approx(period, abs=0.0005 / (PERIOD_UPDATES - 1) + 1e-9)


def test_a_reading_that_does_not_move_twice_has_no_period(monkeypatch):
    clock = Clock(monkeypatch)
    assert update_period(lambda: 7.0, 0.5) is None
    assert update_period(lambda: clock.now // 0.4, 0.5) is None
    assert clock.now < 102
    assert time.monotonic() == clock.now
