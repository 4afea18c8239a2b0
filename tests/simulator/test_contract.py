"""The pure functions of docs/machine.md: generator, uniforms, threshold, exp2, Potts weights, seeds, temperatures.

Three bodies are compared wherever all exist: the C core, the NumPy reference, and the text re-derived here in plain
Python integers. Errors are measured against 60-digit decimal arithmetic, and every bound is derived, not observed.
Nothing here is statistical, so there is no alpha: each comparison is exact or a proven inequality.
"""

from __future__ import annotations

import decimal
import runpy
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from glauber.catalogue import load_spec
from glauber.compile import AnyProgram, compile_program, derive_seed, make_run, step_of
from glauber.compile.run import LOG2_E, scaled_betas
from glauber.compile.run import threefry4x32 as python_threefry
from glauber.errors import ModelNotSupportedError
from glauber.model import IsingModel, Model, PottsModel
from glauber.schedule import SamplingSchedule
from glauber_simulator import arithmetic, core, reference
from numpy.typing import NDArray

X_MAX = 63 << 32

# Random123's kat_vectors, threefry4x32 with 20 rounds: key, counter, output.
KNOWN_ANSWERS = [
    ("00000000 " * 4, "00000000 " * 4, "9c6ca96a e17eae66 fc10ecd4 5256a7d8"),
    ("ffffffff " * 4, "ffffffff " * 4, "2a881696 57012287 f6c7446e a16a6732"),
    (
        "a4093822 299f31d0 082efa98 ec4e6c89",
        "243f6a88 85a308d3 13198a2e 03707344",
        "59cd1dbb b8879579 86b5d00c ac8b6d84",
    ),
]


def compiled(model: Model) -> AnyProgram:
    return compile_program(model, step_of(model, load_spec("ideal")))


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


def c_threefry(key: list[int], counter: list[int]) -> list[int]:
    return core.threefry(np.array(key, np.uint32), np.array(counter, np.uint32)).tolist()


def numpy_threefry(key: list[int], counter: list[int]) -> list[int]:
    k0, k1, k2, k3 = key
    return [int(word) for word in arithmetic.threefry4x32((k0, k1, k2, k3), tuple(np.uint32(c) for c in counter))]


# Generator


@pytest.mark.parametrize("body", [c_threefry, numpy_threefry, python_threefry])
@pytest.mark.parametrize(("key", "counter", "out"), KNOWN_ANSWERS, ids=["zeros", "ones", "pi"])
def test_threefry_known_answers(body, key, counter, out):
    assert body(words(key), words(counter)) == words(out)


def test_threefry_bodies_agree_on_random_words():
    rng = np.random.default_rng(1)
    for key, counter in rng.integers(0, 2**32, size=(200, 2, 4)).tolist():
        assert c_threefry(key, counter) == numpy_threefry(key, counter) == python_threefry(key, counter)


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("sweep", [0, 1, 2**32 - 1, 2**32, 2**48 - 1])
def test_uniforms_follow_the_layouts_of_section_4(layout, sweep):
    seed, stream, purpose = 0xFEDCBA9876543210, 7, 0
    # around every multiple of 32 where the words change, and far out
    numbers = [0, 1, 30, 31, 32, 33, 63, 64, 65, 95, 96, 1000, 2**20 + 5]
    key = [seed & 0xFFFFFFFF, seed >> 32, purpose + 16 * layout + 256 * stream, sweep >> 32]
    got = arithmetic.uniforms(
        arithmetic.key_of(seed, purpose, layout, stream, sweep),
        sweep,
        layout,
        np.array(numbers, dtype=np.int64),
        np.array(numbers, dtype=np.int64),
    )
    for i, position in enumerate(numbers):
        for j, chain in enumerate(numbers):
            a, c, bit = (position, chain >> 5, chain & 31) if layout == 0 else (position >> 5, chain, position & 31)
            u = 0
            for k in range(32):  # bit 31-k of u is bit `bit` of word k % 4 at the counter with g = k // 4
                word = c_threefry(key, [a, sweep & 0xFFFFFFFF, c, k // 4])[k % 4]
                u |= (word >> bit & 1) << (31 - k)
            assert int(got[i, j]) == u, (position, chain)


def test_a_chain_does_not_depend_on_how_many_run():
    key = arithmetic.key_of(3, 0, 0, 0, 5)
    positions = np.arange(40, dtype=np.int64)
    whole = arithmetic.uniforms(key, 5, 0, positions, np.arange(100, dtype=np.int64))
    part = arithmetic.uniforms(key, 5, 0, positions, np.arange(37, 71, dtype=np.int64))
    np.testing.assert_array_equal(whole[:, 37:71], part)


def test_purposes_layouts_streams_and_sweeps_have_keys_of_their_own():
    keys = {
        arithmetic.key_of(seed, purpose, layout, stream, sweep)
        for seed in (0, 1, 2**32)
        for purpose in (reference.DECISION, reference.START, reference.CATEGORICAL)
        for layout in (0, 1)
        for stream in (0, 1, 2)
        for sweep in (0, 2**32, 2**33)
    }
    assert len(keys) == 3 * 3 * 2 * 3 * 3


# exp2 and the threshold


@pytest.fixture(autouse=True)
def digits() -> Iterator[None]:
    """Sixty digits wherever a test computes with Decimal."""
    with decimal.localcontext() as context:
        context.prec = 60
        yield


def exact_powers(fractions: list[int]) -> dict[int, Decimal]:
    """2^(-f / 2^32) for each f."""
    ln2 = Decimal(2).ln()
    return {f: (-ln2 * f / 2**32).exp() for f in fractions}


def points(rng: np.random.Generator) -> NDArray[np.uint64]:
    """Where exp2 and T are looked at: random, around each table entry in each octave, around both ends."""
    rough = 2.0 ** rng.uniform(0, np.log2(X_MAX), 6000)
    even = rng.integers(0, X_MAX, 2000).astype(np.float64)
    octaves, entries, steps = np.arange(64), np.arange(256), np.arange(-2, 3)
    table = (octaves[:, None, None] << 32) + (entries[:, None] << 24) + steps
    ends = np.concatenate([np.arange(5), X_MAX - np.arange(5), (62 << 32) + np.arange(-2, 3)])
    found = np.concatenate([np.concatenate([rough, even]).astype(np.int64), table.ravel(), ends])
    return np.unique(found[(found >= 0) & (found <= X_MAX)]).astype(np.uint64)


def test_exp2_of_both_bodies_and_its_error():
    # The table rounds by half of 2^-31 and the polynomial is cut at 2^-31, each against a number of up to 2^31, so at
    # scale 2^62 they cost up to 2^30 either way and 2^31 downwards, times 2^-n; the Taylor rest z^4 / 24 with
    # z = 2^-8 ln 2 is 2.24e-12, downwards; the constants' rounding and the shifts inside cost below 2^17, and the last
    # shift one.
    xs = points(np.random.default_rng(2))
    got = arithmetic.exp2(xs)
    truths = exact_powers(sorted({int(x) & 0xFFFFFFFF for x in xs}))
    up, down = 2.0**30 + 2.0**17, 2.0**30 + 2.0**31 + 2.24e-12 * 2.0**62 + 2.0**17
    for x, value in zip(xs.tolist(), got.tolist(), strict=True):
        assert value == core.exp2(x)
        n = x >> 32
        error = float(value - truths[x & 0xFFFFFFFF] * 2**62 / 2**n)
        if n < 62:
            assert -down / 2**n - 1 <= error <= up / 2**n, (x, error)
        else:
            assert value == 0


UP, DOWN = 1.34, 2.001
"""Bounds of the threshold's error in units of 2^-32, for fields >= 0; mirrored below 0. With t = 1 / (1 + e) and
y = 2^-n: the division rounds down by less than 1; rounding the denominator costs at most t^2 either way; the table's
rounding t^2 y; cutting the polynomial 2 e t^2, upwards; the Taylor rest 0.0024, upwards; the rest below 0.0001. Since
e > y / 2, downwards this is below 1 + (1 + y) / (1 + y / 2)^2 <= 2, and upwards t^2 (1 + y + 2 e) + 0.0024 is largest,
1.336, at y = 1, e = 1/2 (at e = 1 the table is exact). The contract promises 2.5."""


def test_threshold_of_both_bodies_and_its_error(record_property):
    xs = points(np.random.default_rng(3))
    # a field of 1 and b = x reach every x; the reference takes one b at a time, so its parts are put together here
    e = arithmetic.exp2(xs)
    top = np.uint64(2**32 - 1)
    ours = np.minimum(np.uint64(1 << 63) // ((np.uint64(1 << 62) + e + np.uint64(1 << 30)) >> np.uint64(31)), top)
    truths = exact_powers(sorted({int(x) & 0xFFFFFFFF for x in xs}))
    smallest, largest = 0.0, 0.0
    for x, t in zip(xs.tolist(), ours.tolist(), strict=True):
        assert core.threshold(1, x) == t
        assert core.threshold(-1, x) == 2**32 - t
        error = float(t - 2**32 / (1 + truths[x & 0xFFFFFFFF] / 2 ** (x >> 32)))
        smallest, largest = min(smallest, error), max(largest, error)
    record_property("threshold error in units of 2^-32", f"{smallest:.5f} to {largest:.5f}")  # see --junit-xml
    assert smallest > -DOWN
    assert largest < UP
    # the search did reach the hard places: a bound that is never approached would hide a wrong measurement
    assert smallest < -1.9
    assert largest > 1.1


def test_reference_thresholds_are_the_cores_for_real_fields():
    rng = np.random.default_rng(4)
    for _ in range(300):
        b = int(rng.integers(0, 2**63) >> rng.integers(0, 63))
        # small fields, large ones, and those where |field| b saturates
        edge = X_MAX // b if b else 5
        fields = np.concatenate(
            [np.arange(-3, 4), rng.integers(-(2**30), 2**30, 8), edge + np.arange(-2, 3), -edge + np.arange(-2, 3)]
        )
        fields = np.unique(fields[np.abs(fields) < 2**31])
        got = arithmetic.thresholds(fields, b)
        assert got.tolist() == [core.threshold(int(field), b) for field in fields]
        assert (got + arithmetic.thresholds(-fields, b))[fields != 0].tolist() == [2**32] * int((fields != 0).sum())
        assert ((got > 0) & (got < 2**32)).all()
        assert int(got[fields == 0][0]) == 2**31


def test_a_wide_scan_of_the_threshold_stays_inside_the_derived_bounds():
    # float64 is good to 2^32 * 4 * 2^-53 < 1e-5 units here, so two million points cost nothing
    rng = np.random.default_rng(5)
    x = rng.integers(0, 34 << 32, 2_000_000).astype(np.uint64)
    e = arithmetic.exp2(x)
    t = np.minimum(np.uint64(1 << 63) // ((np.uint64(1 << 62) + e + np.uint64(1 << 30)) >> np.uint64(31)), 2**32 - 1)
    error = t - 2.0**32 / (1 + np.exp2(-(x / 2.0**32)))
    assert -DOWN - 1e-5 < error.min() < -1.95
    assert 1.1 < error.max() < UP + 1e-5


def test_the_threshold_is_not_monotone_but_nearly():
    # the contract warns of dips where the table's entry changes; if there were none the warning would be wrong
    j = np.arange(1, 256, dtype=np.uint64) << np.uint64(24)
    x = (np.arange(4, dtype=np.uint64)[:, None] << np.uint64(32)) + j
    before = np.array([core.threshold(1, int(v) - 1) for v in x.ravel()], dtype=np.int64)
    after = np.array([core.threshold(1, int(v)) for v in x.ravel()], dtype=np.int64)
    assert (after - before).min() in (-1, -2)


def test_constants_are_the_formulas():
    ln2 = Decimal(2).ln()
    half_even = decimal.ROUND_HALF_EVEN
    assert int(arithmetic.A) == int((2**38 * ln2).to_integral_value(half_even)) == 190530846196
    assert int(arithmetic.B) == int((2**30 * ln2**2 / 2).to_integral_value(half_even)) == 257941248
    assert int(arithmetic.C) == int((2**30 * ln2**3 / 6).to_integral_value(half_even)) == 59597083
    assert int(arithmetic.E[0]) == 2**31
    for j in range(256):  # E[j] is nearest to 2^31 2^(-j/256), by integers: |(2 E)^256 - ...| needs no logarithm
        low, high = 2 * int(arithmetic.E[j]) - 1, 2 * int(arithmetic.E[j]) + 1
        assert low**256 < 2 ** (32 * 256 - j) < high**256


def test_importing_the_reference_leaves_the_callers_decimal_precision_alone():
    with decimal.localcontext() as context:
        context.prec = 11
        runpy.run_path(arithmetic.__file__)
        assert decimal.getcontext().prec == 11


# Seeds and temperatures


def test_derived_seeds_are_words_0_and_1_of_purpose_15():
    mask = 0xFFFFFFFF
    for device_seed in (0, 1, 2**32 - 1, 2**32, 0x0123456789ABCDEF, 2**64 - 1):
        for job in (0, 1, 2**32 - 1, 2**32 + 5):
            low, high, _, _ = c_threefry([device_seed & mask, device_seed >> 32, 15, 0], [job & mask, job >> 32, 0, 0])
            assert derive_seed(device_seed, job) == low + (high << 32)
    assert len({derive_seed(s, j) for s in range(50) for j in range(50)}) == 2500


def ieee_product(*factors: float) -> float:
    """The product from left to right, each step rounded to the nearest double by exact rationals."""
    result = Fraction(1)
    for factor in factors:
        result = Fraction(float(result * Fraction(factor)))
    return float(result)


def test_scaled_betas_round_half_to_even_in_the_stated_order():
    rng = np.random.default_rng(6)
    # where doubles are spaced 1/2, every second product is a tie; and everywhere else
    tie_range = rng.uniform(2.0**51, 2.0**52, 400) / (2 * LOG2_E * 2.0**32)
    betas = np.concatenate([tie_range, 10.0 ** rng.uniform(-9, 5, 400), [0.0, 5e-324]])
    for step in (1.0, 0.3, 1 / 127):
        for potts, factor in ((False, 2.0), (True, 1.0)):
            got = scaled_betas(betas / step, step, potts=potts)
            assert got.dtype == np.uint64
            ties = 0
            for beta, b in zip((betas / step).tolist(), got.tolist(), strict=True):
                product = ieee_product(factor, beta, step, LOG2_E, 2.0**32)
                below = int(product)
                rest = Fraction(product) - below
                ties += rest == Fraction(1, 2)
                up = rest > Fraction(1, 2) or (rest == Fraction(1, 2) and below % 2 == 1)
                assert b == below + up
            assert ties > 50 or potts  # without the factor 2 the same betas land where doubles are spaced 1/4
    assert float.hex(LOG2_E) == float.hex(float(1 / Decimal(2).ln()))


def test_b_from_2_to_the_63_is_refused():
    largest = 2.0**31 / LOG2_E / 2  # b would be 2^63
    assert int(scaled_betas(np.array([largest * (1 - 1e-15)]), 1.0, potts=False)[0]) < 2**63
    for beta, potts in ((largest * (1 + 1e-15), False), (2 * largest * (1 + 1e-15), True), (1e300, False)):
        with pytest.raises(ModelNotSupportedError, match="too cold"):
            scaled_betas(np.array([1.0, beta]), 1.0, potts=potts)


def test_the_layout_follows_from_the_whole_job():
    coupled = compiled(IsingModel.from_edges([(0, 1, 1.0)]))
    loose = compiled(IsingModel(np.ones(3), np.zeros((0, 2), np.int32), np.zeros(0)))
    potts = compiled(PottsModel.from_edges(2, 3, [(0, 1, 1.0)]))
    for program, chains, layout in (
        (coupled, 4, 1), (coupled, 5, 0), (loose, 1, 1), (loose, 500, 1), (potts, 1, 0), (potts, 5, 0)
    ):  # fmt: skip
        assert make_run(program, SamplingSchedule(n_chains=chains), seed=0).layout == layout


# Potts


def potts_session(q: int) -> reference.PottsReference:
    program = compiled(PottsModel(np.zeros((1, q)), np.zeros((0, 2), np.int32), np.zeros(0)))
    return reference.PottsReference(program, make_run(program, SamplingSchedule(), seed=0))


def check_total_variation(q: int, field: NDArray[np.int64], allowed: NDArray[np.bool_], b: int) -> float:
    """The exact distance of what is drawn from what was asked is within the bound; returns the distance.

    The bound is derived in docs/decisions/0012: with w_k = 2^L 2^(-x_k), L = 31 or 62 less ceil(log2 q), S = sum w_k
    and D = q + 2.02 2^-31 S it is D / (S - D) + q 2^-33.
    """
    rng, session = np.random.default_rng(q), potts_session(q)
    bits = (q - 1).bit_length()
    scale = 31 - bits if q <= 64 else 62 - bits
    ln2 = Decimal(2).ln()
    gaps = np.where(allowed, field[allowed].max() - field, 0)
    x = [int(v) for v in arithmetic.scale(gaps.astype(np.uint64), b)]
    e = [int(v) for v in arithmetic.exp2(np.array(x, dtype=np.uint64))]
    weights = [(value >> (31 + bits if q <= 64 else bits)) if ok else 0 for value, ok in zip(e, allowed, strict=True)]
    powers = {v: (-ln2 * v / 2**32).exp() * 2**scale for v in set(x)}
    exact = [powers[v] if ok else Decimal(0) for v, ok in zip(x, allowed, strict=True)]
    total, exact_total = sum(weights), sum(exact)
    assert total < 2 ** (32 if q <= 64 else 63)  # the sums cannot overflow
    # state k is drawn for the u from borders[k] to borders[k + 1] - 1, exactly
    sums = np.cumsum([0, *weights], dtype=object)
    borders = [-(-int(c) * 2**32 // total) for c in sums]
    distance = sum(
        abs(Decimal(high - low) / 2**32 - w / exact_total)
        for low, high, w in zip(borders[:-1], borders[1:], exact, strict=True)
    )
    slack = q + Decimal("2.02") / 2**31 * exact_total
    bound = slack / (exact_total - slack) + Decimal(q) / 2**33
    assert distance / 2 <= bound, (q, b, float(distance / 2), float(bound))
    reported = session._program.quantisation.draw_error  # whatever the fields: S = 2^L at least
    assert float(bound) <= reported * (1 + 1e-12) < 1e-5
    # and the reference does draw by these borders: look at both sides of each
    u = np.array([v for border in borders[1:-1] for v in (border - 1, border)] + [0, 2**32 - 1], dtype=np.int64)
    u = np.unique(u[(u >= 0) & (u < 2**32)])
    most = 400 if q < 10_000 else 8
    u = u if len(u) < most else rng.choice(u, most, replace=False)
    got = session._draw(np.tile(field.astype(np.int64), (len(u), 1)), np.asarray(allowed), b, u.astype(np.uint64))
    wanted = np.searchsorted(np.array(borders[1:], dtype=np.int64), u, side="right")
    np.testing.assert_array_equal(got, wanted)
    assert allowed[got].all()
    return float(distance / 2)


@pytest.mark.parametrize("q", [2, 3, 4, 5, 63, 64, 65, 70, 300, 512, 4096])
def test_potts_draws_stay_within_the_derived_total_variation(q):
    rng = np.random.default_rng(q)
    for b in (0, 2**22, 2**25, 2**28, 2**33):
        allowed = rng.random(q) < 0.8
        allowed[rng.integers(q)] = True
        check_total_variation(q, rng.integers(-(2**9), 2**9, q), allowed, b)


@pytest.mark.parametrize("q", [512, 4096, 50_257])
@pytest.mark.parametrize("gap", [9, 16, 20, 30, 45])
def test_one_high_peak_does_not_swallow_the_other_states(q, gap):
    """A peak 2^gap above all others: weights of 32 bits would cut the others to nothing and lose their share."""
    field = np.zeros(q, dtype=np.int64)
    field[q // 3] = gap
    distance = check_total_variation(q, field, np.ones(q, dtype=np.bool_), 2**32)
    others = (q - 1) / (2.0**gap + q - 1)
    assert distance < others / 100 or others < q / 2**33
