"""Coverage factors against the distributions themselves, and buffered readings against known powers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from glauber.buffered import Buffer
from glauber.coverage import ErrorTerm, effective_degrees_of_freedom, half_width
from glauber.energy import UncertaintyPart
from glauber.errors import FileFormatError, InvalidModelError, MeteringError, ProtocolError
from glauber.meter import ErrorLimit, IdlePower, MeterSpec, Trace, idle_power, measured_energy
from glauber.testing import KnownPower
from glauber.trace_file import load_trace, save_trace
from scipy.stats import binom, norm, t

RECTANGLE = ErrorTerm(1 / math.sqrt(3), "rectangular")  # +-1
SPEC = MeterSpec(
    name="a buffering meter",
    boundary="chip",
    reads="watts",
    period_seconds=0.01,
    averaging_seconds=0.0,
    seen_share=1.0,
    seen_source="",
    relative_limit=0.0,
    resolution=0.0,
    accuracy_source="this test",
    limits=(ErrorLimit("gain", "this test", relative=0.01), ErrorLimit("offset", "this test", watts=0.02)),
)


@pytest.mark.parametrize("level", [0.5, 0.6827, 0.95, 0.99])
def test_half_widths_of_single_errors_are_their_quantiles(level):
    assert half_width([RECTANGLE], level) == pytest.approx(level, rel=1e-6)
    assert half_width([ErrorTerm(2.0, "normal")], level) == pytest.approx(2 * norm.ppf((1 + level) / 2), rel=1e-4)
    for freedom in (4, 7, 30):
        term = ErrorTerm(math.sqrt(freedom / (freedom - 2)), "t", freedom)
        assert half_width([term], level) == pytest.approx(t.ppf((1 + level) / 2, freedom), rel=2e-3)


@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_two_equal_rectangles_make_a_triangle(level):
    assert half_width([RECTANGLE, RECTANGLE], level) == pytest.approx(2 * (1 - math.sqrt(1 - level)), rel=1e-4)


def test_sums_of_errors_are_covered_as_often_as_stated():
    """Half widths against 200,000 sums drawn at random: 4 standard errors."""
    rng, n = np.random.default_rng(1), 200_000
    terms = [
        ErrorTerm(1.0, "rectangular"),
        ErrorTerm(0.4, "normal"),
        ErrorTerm(0.7, "rectangular"),
        ErrorTerm(0.5, "t", 7),
    ]
    limits = [math.sqrt(3), 0.7 * math.sqrt(3)]
    sums = rng.uniform(-limits[0], limits[0], n) + rng.uniform(-limits[1], limits[1], n) + 0.4 * rng.standard_normal(n)
    sums += 0.5 * math.sqrt(5 / 7) * rng.standard_t(7, n)
    for level in (0.68, 0.95, 0.99):
        inside = int((np.abs(sums) <= half_width(terms, level)).sum())
        assert abs(inside - level * n) < 4 * math.sqrt(n * level * (1 - level))
    twice = int((np.abs(sums) <= 2 * math.sqrt(sum(term.standard_uncertainty**2 for term in terms))).sum())
    assert twice > binom.ppf(0.9995, n, 0.95)  # k = 2 would cover more than it says


def test_few_observations_widen():
    """GUM G.4.1 by hand, for equal scales of 4 and of 8 degrees of freedom; and U is larger than for many."""
    terms = [ErrorTerm(math.sqrt(4 / 2), "t", 4), ErrorTerm(math.sqrt(8 / 6), "t", 8)]
    assert effective_degrees_of_freedom(terms) == pytest.approx(4 / (1 / 4 + 1 / 8))
    assert effective_degrees_of_freedom([RECTANGLE]) == math.inf
    draws = np.random.default_rng(5).standard_t([4, 8], (200_000, 2)).sum(axis=1)
    inside = float((np.abs(draws) <= half_width(terms, 0.95)).mean())
    assert abs(inside - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 200_000)
    assert half_width(terms, 0.95) > 1.2 * half_width([ErrorTerm(math.sqrt(2), "normal")], 0.95)


def test_levels_that_are_none():
    for level in (0.0, 1.0, 95.0, math.nan):
        with pytest.raises(InvalidModelError, match=r"such as 0\.95"):
            half_width([RECTANGLE], level)
    assert half_width([], 0.95) == 0.0
    assert half_width([ErrorTerm(0.0, "normal")], 0.95) == 0.0


def test_a_report_expands_by_its_largest_line():
    """A lone rectangular gain: U is 0.95 of the limit, and not twice the standard uncertainty."""
    report = measured_energy(replace(SPEC, limits=SPEC.limits[:1]), buffered(KnownPower(5.0)))
    assert report.joules == pytest.approx(5.0)
    assert report.expanded_uncertainty() == pytest.approx(0.95 * 0.01 * 5.0, rel=1e-3)
    assert report.expanded_uncertainty() < 1.7 * report.standard_uncertainty
    assert report.as_dict()["expanded_uncertainty"] == report.expanded_uncertainty()
    assert report.expanded_uncertainty(net=True) is None
    assert report.effective_degrees_of_freedom() == math.inf


def test_an_idle_baseline_of_few_blocks_counts_as_such():
    spec = replace(SPEC, limits=SPEC.limits[1:])
    report = measured_energy(spec, buffered(KnownPower(5.0)), idle=IdlePower(1.0, 0.1, 5.0))
    lines = {line.name: line for line in report.budget}
    assert lines["offset"].joules == pytest.approx(0.02 / math.sqrt(3))
    assert lines["offset"].net_joules == 0.0  # the baseline has the same offset
    assert lines["idle baseline"].degrees_of_freedom == 7
    assert report.effective_degrees_of_freedom(net=True) == pytest.approx(7, rel=0.01)
    assert report.expanded_uncertainty(net=True) == pytest.approx(0.1 * math.sqrt(5 / 7) * t.ppf(0.975, 7), rel=0.01)


# Buffers


def buffered(power, *, window=(100.0, 101.0), period=0.01, early=0.05, shift=0.0, skews=(), integrates=False):
    """Readings from before a window until after it, without errors; `shift` s of them are not told."""
    begin, end = window
    times = np.arange(begin - early, end + early, period)
    true = times + shift
    watts = power.joules(true - period, true) / period if integrates else power.watts(true)
    return Trace(times, watts[None], window, skews)


@pytest.mark.parametrize("integrates", [False, True])
def test_the_integral_of_a_buffer_is_that_of_its_power(integrates):
    for phase in np.linspace(0, 6, 7):
        power = KnownPower(5.0, 2.0, 3.0, float(phase))
        spec = replace(SPEC, averaging_seconds=0.01 if integrates else 0.0)
        report = measured_energy(spec, buffered(power, window=(100.003, 101.0071), integrates=integrates))
        assert report.joules == pytest.approx(float(power.joules(100.003, 101.0071)), rel=1e-3)
        names = [line.name for line in report.budget]
        assert ("sampling gaps" in names) is not integrates  # who integrates misses nothing


def test_the_trigger_skew_is_what_a_moved_buffer_changes():
    power = KnownPower(5.0, 2.0, 0.3, 0.0)
    report = measured_energy(SPEC, buffered(power, window=(100.0, 101.0), skews=(0.02,)))
    (line,) = (line for line in report.budget if line.name == "trigger skew")
    moved = [
        float(power.joules(100 + s, 101 + s)) - float(power.joules(100, 101)) for s in np.linspace(-0.02, 0.02, 201)
    ]
    assert line.joules == pytest.approx(max(map(abs, moved)) / math.sqrt(3), rel=0.01)


@pytest.mark.parametrize("integrates", [False, True])
def test_budgets_of_buffers_cover_95_of_100(integrates):
    """Gain, offset, noise and skew drawn as the budget assumes: the band has two sides, so too wide fails as well."""
    rng, n, inside = np.random.default_rng(2), 400, 0
    spec = replace(SPEC, averaging_seconds=0.01 if integrates else 0.0)
    for _ in range(n):
        power = KnownPower(5.0, rng.uniform(0, 1), rng.uniform(0.2, 1), rng.uniform(0, 6.28))
        trace = buffered(power, shift=rng.uniform(-0.02, 0.02), skews=(0.02,), integrates=integrates)
        readings = (1 + 0.01 * rng.uniform(-1, 1)) * trace.readings + 0.02 * rng.uniform(-1, 1)
        readings = readings + 0.2 * rng.standard_normal(readings.shape)
        report = measured_energy(spec, replace(trace, readings=readings))
        inside += abs(report.joules - float(power.joules(100, 101))) <= report.expanded_uncertainty()
    assert binom.ppf(0.0005, n, 0.95) <= inside <= binom.ppf(0.9995, n, 0.95)


def covered(report, errors):
    """In how many of the draws the 95 % half width holds the error."""
    return int((np.abs(errors) <= report.expanded_uncertainty()).sum())


DRAWS = 20_000
LOW, HIGH = binom.ppf([0.0005, 0.9995], DRAWS, 0.95)


def test_the_two_edges_of_a_window_are_covered_95_of_100():
    """Each edge anywhere within its limit, by hand: 10 W for what lies before the first and after the last update."""
    spec = replace(SPEC, reads="joules", period_seconds=0.1, limits=(), resolution=1e-9)
    times = np.arange(0.0, 2.0, 0.01) + 0.003
    trace = Trace(times, np.floor((times + 0.032) / 0.1))  # updates at 0.068, 0.168 .. 1.968 s, +-0.005 s
    report, rng = measured_energy(spec, trace), np.random.default_rng(6)
    limits = 10 * np.array([[0.068 - 0.003 + 0.005], [1.993 - 1.968 + 0.005]])
    errors = (limits * rng.uniform(-1, 1, (2, DRAWS))).sum(axis=0)
    assert LOW <= covered(report, errors) <= HIGH
    one = 0.95 * math.sqrt(3) * math.hypot(*limits[:, 0]) / math.sqrt(3)  # both filed as a single rectangular error
    assert (np.abs(errors) <= one).sum() < LOW


@pytest.mark.parametrize("buffers", [False, True])
def test_many_gaps_between_readings_are_covered_95_of_100(buffers):
    """5 W and 1 W in turn, so each of 400 trapezoids is wrong by up to 2 W x 0.01 s, independently."""
    times = 0.01 * np.arange(401)
    watts = np.where(np.arange(401) % 2, 5.0, 1.0)
    if buffers:
        gaps = Buffer(times, watts[None], (times[0], times[-1]), integrates=False).lines((), 0.0)
    else:
        gaps = measured_energy(replace(SPEC, limits=()), Trace(times, watts)).budget
    (line,) = (line for line in gaps if line.name == "sampling gaps")
    width = half_width([ErrorTerm(line.joules, line.distribution)], 0.95)
    rng = np.random.default_rng(7)
    errors = np.array([rng.uniform(-0.02, 0.02, 400).sum() for _ in range(DRAWS)])
    assert LOW <= (np.abs(errors) <= width).sum() <= HIGH
    assert (np.abs(errors) <= 0.95 * math.sqrt(3) * line.joules).sum() < LOW  # as one rectangular error


def test_the_edges_of_integrated_power_are_covered_95_of_100():
    """A steady 3 W has no gaps; each end is late by up to a period and half an averaging time, anywhere within it."""
    spec = replace(SPEC, limits=(), averaging_seconds=0.04)
    times = 0.01 * np.arange(401)
    report, rng = measured_energy(spec, Trace(times, np.full(401, 3.0))), np.random.default_rng(8)
    errors = 3.0 * (0.01 + 0.02) * rng.uniform(-1, 1, (2, DRAWS)).sum(axis=0)
    assert LOW <= covered(report, errors) <= HIGH


def test_rails_have_errors_of_their_own():
    trace = buffered(KnownPower(3.0))
    two = replace(trace, readings=np.concatenate([trace.readings, 2 * trace.readings]))
    limits = (ErrorLimit("gain 1", "t", relative=0.01), ErrorLimit("gain 2", "t", relative=0.02, rail=1))
    report = measured_energy(replace(SPEC, limits=limits), two)
    lines = {line.name: line.joules for line in report.budget}
    assert report.joules == pytest.approx(9.0)
    assert (lines["gain 1"], lines["gain 2"]) == (
        pytest.approx(0.03 / math.sqrt(3)), pytest.approx(0.12 / math.sqrt(3)),
    )  # fmt: skip


def test_buffers_that_do_not_reach_are_wide_and_short_windows_refused():
    power, spec = KnownPower(5.0), replace(SPEC, limits=SPEC.limits[:1])
    whole = buffered(power)
    late = replace(whole, times=whole.times[15:], readings=whole.readings[:, 15:])  # 0.1 s of the window are not seen
    edges = {line.name: line.joules for line in measured_energy(spec, late).budget}
    assert edges["window end"] == 0.0
    assert edges["window start"] == pytest.approx(5.0 * 0.1 / math.sqrt(3), rel=0.02)
    with pytest.raises(MeteringError, match=r"it holds 3 readings of at least 5"):
        measured_energy(SPEC, replace(whole, window=(100.0, 100.025)))
    with pytest.raises(MeteringError, match="no figure at all"):  # below what the offset alone may be
        measured_energy(SPEC, buffered(KnownPower(0.005)))
    with pytest.raises(ProtocolError, match="shape"):
        measured_energy(SPEC, replace(whole, readings=whole.readings[:, 1:]))


def test_negative_readings_are_noise_where_an_offset_is_stated():
    trace = buffered(KnownPower(0.1, 0.15, 7.0))
    assert (trace.readings < 0).any()
    assert measured_energy(SPEC, trace).joules == pytest.approx(0.1, rel=0.2)
    with pytest.raises(ProtocolError, match="cannot be"):
        measured_energy(replace(SPEC, limits=SPEC.limits[:1]), trace)


def test_idle_power_of_a_buffer():
    rng = np.random.default_rng(3)
    trace = buffered(KnownPower(2.0), early=1.0)
    noisy = replace(trace, readings=trace.readings + 0.1 * rng.standard_normal(trace.readings.shape))
    found = idle_power(SPEC, noisy)
    assert abs(found.watts - 2.0) < 4 * found.standard_error
    assert found.standard_error < 0.02


def test_noise_is_found_under_a_slow_load():
    rng = np.random.default_rng(4)
    trace = buffered(KnownPower(5.0, 2.0, 1.0))
    noisy = trace.readings + 0.1 * rng.standard_normal(trace.readings.shape)
    buffer = Buffer(trace.times, noisy, trace.window, integrates=False)
    (noise,) = (line for line in buffer.lines((), 0.0) if line.name == "noise")
    assert noise.joules == pytest.approx(0.1 * 0.01 * math.sqrt(100), rel=0.2)
    assert noise.evaluation == "A"


# Files


def test_recordings_give_the_same_joules_again(tmp_path):
    trace, idle = buffered(KnownPower(5.0), skews=(0.01, 0.002)), IdlePower(1.0, 0.1, 5.0)
    known = replace(SPEC, identity="no. 7")
    save_trace(tmp_path / "t.npz", known, trace, idle=idle)
    spec, back, found = load_trace(tmp_path / "t.npz")
    assert (spec, found, back.window, back.skews) == (known, idle, trace.window, trace.skews)
    assert measured_energy(spec, back, idle=found) == measured_energy(known, trace, idle=idle)


def test_files_that_are_no_recordings(tmp_path):
    path = tmp_path / "t.npz"
    save_trace(path, SPEC, buffered(KnownPower(5.0)))
    whole = path.read_bytes()
    for content in (b"", b"no file", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(FileFormatError, match="no recording"):
            load_trace(path)
    with path.open("wb") as file:
        np.savez(file, header=np.array('{"glauber_trace": 99}'), times=np.arange(3.0), readings=np.arange(3.0))
    with pytest.raises(FileFormatError, match="version 99"):
        load_trace(path)
    with pytest.raises(OSError, match="nowhere"):
        load_trace(tmp_path / "nowhere.npz")


def test_damaged_recordings_are_said_to_be_that(tmp_path):
    """Three bytes of each of 300 files are changed at random; what can still be read must be a recording."""
    path = tmp_path / "t.npz"
    save_trace(path, replace(SPEC, identity="no. 7"), buffered(KnownPower(5.0)))
    whole, rng, refused = path.read_bytes(), np.random.default_rng(9), 0
    for _ in range(300):
        damaged = bytearray(whole)
        for at in rng.integers(len(whole), size=3):
            damaged[at] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            load_trace(path)
        except FileFormatError:
            refused += 1
    assert refused > 200  # checksums find nearly all; some bytes mean nothing


def test_a_line_of_an_older_file_has_no_degrees_of_freedom():
    line = UncertaintyPart(name="gain", joules=1.0, net_joules=1.0, distribution="t", evaluation="A", source="")
    assert half_width([ErrorTerm(line.joules, line.distribution, line.degrees_of_freedom)], 0.95) == pytest.approx(
        1.96, rel=1e-3
    )
