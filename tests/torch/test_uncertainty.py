"""Uncertainty and calibration: exact cases, scikit-learn's figures, and intervals that cover as often as they say."""

from __future__ import annotations

import itertools
import math

import glauber as gl
import numpy as np
import pytest
from glauber.errors import InvalidModelError

torch = pytest.importorskip("torch", reason="needs the extra torch: pip install -e '.[torch]'")
from glauber.torch.uncertainty import class_probabilities  # noqa: E402


class TwoBits(torch.nn.Module):
    """A classifier of three classes on two p-bits, few enough to enumerate."""

    def __init__(self, device):
        super().__init__()
        self.bits = gl.torch.BinaryLayer(device)
        self.head = torch.nn.Linear(2, 3)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[2.0, -1.0], [-1.0, 1.5], [0.5, 0.5]]))
            self.head.bias.zero_()

    def forward(self, x):
        return self.head(self.bits(x))


def test_the_decomposition_of_two_bits_is_that_of_their_enumeration(device):
    model, x, n = TwoBits(device), torch.tensor([[0.3, -0.7], [2.0, 1.0]]), 4000
    found = gl.torch.predict(model, x, n)
    on = torch.sigmoid(x.double())
    mean, expected = torch.zeros(2, 3, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    squares = torch.zeros(2, dtype=torch.float64)
    for bits in itertools.product((0.0, 1.0), repeat=2):
        b = torch.tensor(bits)
        weight = torch.where(b == 1, on, 1 - on).prod(-1)
        p = torch.softmax(model.head(b).detach().double(), -1)
        h = -(p * p.log()).sum()
        mean += weight[:, None] * p
        expected += weight * h
        squares += weight * h**2
    entropy = -(mean * mean.log()).sum(-1)
    assert found.n_draws == n
    assert model.bits.sampler.usage.jobs == 1
    assert torch.allclose(found.entropy - found.expected_entropy, found.mutual_information)
    error = ((squares - expected**2) / n).sqrt()
    assert ((found.expected_entropy - expected).abs() < 5 * error).all()  # 5 standard errors
    assert ((found.probabilities - mean).abs() < 5 * 0.5 / math.sqrt(n)).all()  # of numbers within 0 .. 1
    assert found.mutual_information.numpy() == pytest.approx((entropy - expected).numpy(), abs=0.02)
    assert (entropy - expected > 0.03).all()  # so that the line above says something
    assert torch.equal(found.classes, found.probabilities.argmax(-1))


class DropsTheFirst(torch.nn.Module):
    def forward(self, x):
        return x[1:]


def test_draws_of_a_batch_stay_with_their_case():
    model = torch.nn.Identity()
    p = torch.tensor([[0.1, 0.9], [0.6, 0.4], [0.5, 0.5]], dtype=torch.float64)
    assert gl.torch.predict(model, p, 3, output="probabilities").probabilities.numpy() == pytest.approx(p.numpy())
    with pytest.raises(InvalidModelError, match="rows"):
        gl.torch.predict(DropsTheFirst(), p, 3)
    with pytest.raises(InvalidModelError, match="n_draws"):
        gl.torch.predict(model, p, 0)


def test_exact_decompositions():
    same = gl.torch.decompose(torch.full((4, 1, 4), 0.25, dtype=torch.float64))
    assert float(same.entropy) == pytest.approx(math.log(4), abs=1e-12)
    assert float(same.mutual_information) == 0
    apart = gl.torch.decompose(torch.eye(2, dtype=torch.float64)[:, None])  # sure, and of another class each time
    assert float(apart.mutual_information) == pytest.approx(math.log(2), abs=1e-12)
    assert float(apart.expected_entropy) == 0


def test_mutual_information_of_few_draws_is_too_low_by_the_stated_factor():
    random = np.random.default_rng(3)
    p = torch.from_numpy(0.5 + 0.05 * random.choice([-1.0, 1.0], size=(5, 20_000)))
    draws = torch.stack([p, 1 - p], -1)
    found = gl.torch.decompose(draws).mutual_information
    h = -(0.55 * math.log(0.55) + 0.45 * math.log(0.45))
    true = math.log(2) - h
    error = float(found.std()) / math.sqrt(len(found))
    assert abs(float(found.mean()) - 0.8 * true) < 5 * error + 0.01 * true  # 5 standard errors; the next order


def test_within_deterministic_there_is_nothing_to_draw(device):
    model = TwoBits(device)
    with gl.torch.deterministic():
        found = gl.torch.predict(model, torch.zeros(2, 2), 3)
    assert found.mutual_information.abs().max() < 1e-12
    assert model.bits.sampler.usage.jobs == 0


@pytest.mark.parametrize(
    ("values", "output", "words"),
    [
        (torch.zeros(3), "logits", "shape"),
        (torch.zeros(3, 1), "logits", "two logits 0 and a"),
        (torch.zeros(3, 2, dtype=torch.int64), "logits", "real numbers"),
        ([[0.5, 0.5]], "logits", "not list"),
        (torch.tensor([[0.0, math.nan]]), "logits", "NaN"),
        (torch.tensor([[0.0, math.inf]]), "logits", "infinity"),
        (torch.tensor([[0.5, 0.51]]), "probabilities", "add up to"),
        (torch.tensor([[-0.5, 1.5]]), "probabilities", "least is -0.5"),
        (torch.zeros(1, 2), "odds", "logits"),
    ],
)
def test_what_is_no_probability_is_refused(values, output, words):
    with pytest.raises(InvalidModelError, match=words):
        class_probabilities(values, output)


def test_probabilities_of_a_thousand_classes_in_float32_pass():
    p = torch.softmax(5 * torch.randn(200, 1000, generator=torch.Generator().manual_seed(1)), -1)
    assert (p.double().sum(-1) - 1).abs().max() < 1e-5
    assert class_probabilities(p, "probabilities").sum(-1).numpy() == pytest.approx(1.0, abs=1e-12)


def test_calibration_errors_by_hand():
    p = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7], [0.5, 0.5]], dtype=torch.float64)
    y = torch.tensor([0, 1, 1, 1, 0])
    found = gl.torch.calibration_errors(p, y, n_bins=2)  # 0.5 alone in (0, 1/2]; the others are right in 3 of 4
    assert found.counts == (1, 4)
    assert found.ece == pytest.approx((0.5 + abs(3 - 3.0)) / 5, abs=1e-12)
    assert found.mce == pytest.approx(0.5, abs=1e-12)
    ten = gl.torch.calibration_errors(p, y, n_bins=10)
    assert ten.counts == (0, 0, 0, 0, 1, 1, 1, 1, 1, 0)
    assert ten.ece == pytest.approx((0.5 + 0.4 + 0.3 + 0.8 + 0.1) / 5, abs=1e-12)
    assert ten.mce == pytest.approx(0.8, abs=1e-12)


def calibrated(n, seed):
    """Probabilities, and labels that follow them."""
    random = np.random.default_rng(seed)
    p = random.dirichlet((1.0, 1.0, 1.0), size=n)
    y = (random.random((n, 1)) > p.cumsum(1)[:, :-1]).sum(1)
    return torch.from_numpy(p), torch.from_numpy(y)


def test_the_stated_bias_is_what_a_calibrated_classifier_has():
    found = [gl.torch.calibration_errors(*calibrated(60, seed), n_bins=10) for seed in range(100)]
    for name in ("ece", "mce"):
        gaps = np.array([getattr(one, name) - getattr(one, f"{name}_if_calibrated") for one in found])
        assert abs(gaps.mean()) < 4 * gaps.std() / 10  # 4 standard errors
    assert np.mean([one.ece for one in found]) > 0.08  # though it is calibrated
    p, y = calibrated(100_000, 1)
    assert gl.torch.calibration_errors(p, y).ece < 0.01
    wrong = gl.torch.calibration_errors(p**3 / (p**3).sum(-1, keepdim=True), y)
    assert wrong.ece > 10 * wrong.ece_if_calibrated


def test_brier():
    metrics = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn: pip install -e '.[dev]'")
    assert gl.torch.brier(torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([2])) == 2
    assert gl.torch.brier(torch.full((1, 4), 0.25), torch.tensor([2])) == pytest.approx(0.75)
    p, y = calibrated(200, 2)
    two = torch.stack([p[:, 0], 1 - p[:, 0]], -1)
    positive = (y > 0).long()
    theirs = metrics.brier_score_loss(positive.numpy(), two[:, 1].numpy())
    assert gl.torch.brier(two, positive) == pytest.approx(2 * theirs, rel=1e-12)


def test_temperature_scaling_finds_the_temperature_and_its_error():
    z = []
    for seed in range(80):
        p, y = calibrated(300, seed)
        fitted = gl.torch.TemperatureScaling.fit(1.7 * p.log().float(), y)
        z.append((float(fitted.log_temperature) - math.log(1.7)) / float(fitted.standard_error))
    outside = sum(abs(x) > 1.96 for x in z)
    assert outside <= 13  # binomial (80, 0.05): 4 expected; false alarm 4e-5
    assert 0.6 < np.std(z) < 1.4  # 1 within 5 standard errors, 1 / sqrt(160) each: an error that is too large shows
    assert abs(np.mean(z)) < 5 / math.sqrt(80)  # 5 standard errors
    logits = 1.7 * p.log()
    assert fitted(logits).numpy() == pytest.approx((logits / fitted.temperature).numpy(), rel=1e-12)
    assert fitted.temperature == math.exp(float(fitted.log_temperature))
    slope = gl.torch.calibration_errors(torch.softmax(fitted(logits), -1), y).ece
    assert slope < gl.torch.calibration_errors(torch.softmax(logits, -1), y).ece


def overconfident_at_times(n, seed):
    """Logits of a calibrated model, every seventh or so times four: no temperature makes them right."""
    p, y = calibrated(n, seed)
    factor = np.where(np.random.default_rng(seed + 10**6).random(n) < 0.15, 4.0, 1.0)
    return p.log() * torch.from_numpy(factor)[:, None], y


def test_the_error_of_a_temperature_holds_where_no_temperature_is_right():
    limit = float(gl.torch.TemperatureScaling.fit(*overconfident_at_times(400_000, 12345)).log_temperature)
    fits = [gl.torch.TemperatureScaling.fit(*overconfident_at_times(300, seed)) for seed in range(100)]
    z = np.array([(float(one.log_temperature) - limit) / float(one.standard_error) for one in fits])
    assert 0.65 < z.std() < 1.35  # 1 within 5 standard errors, 1 / sqrt(200) each
    assert abs(z.mean()) < 0.6  # 5 standard errors, and a tenth for the bias of order 1 / sqrt(n)


@pytest.mark.parametrize("true", [1e-3, 30.0, 1e4])
def test_temperatures_far_from_one(true):
    p, y = calibrated(500, 5)
    fitted = gl.torch.TemperatureScaling.fit(true * p.log(), y)
    assert abs(float(fitted.log_temperature) - math.log(true)) < 5 * float(fitted.standard_error)
    other = gl.torch.TemperatureScaling()
    other.load_state_dict(fitted.state_dict())
    assert other.temperature == fitted.temperature


def test_temperatures_that_do_not_exist_are_refused():
    z = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    fit = gl.torch.TemperatureScaling.fit
    with pytest.raises(InvalidModelError, match="no temperature is low enough"):
        fit(z, torch.tensor([0, 1]))
    with pytest.raises(InvalidModelError, match="tell nothing"):
        fit(z, torch.tensor([1, 0]))
    with pytest.raises(InvalidModelError, match="tell nothing"):
        fit(torch.zeros(2, 2), torch.tensor([1, 0]))
    with pytest.raises(InvalidModelError, match="finite"):
        fit(z / 0, torch.tensor([1, 0]))
    with pytest.raises(InvalidModelError, match="between 0 and 1"):
        fit(z, torch.tensor([1, 2]))
    with pytest.raises(InvalidModelError, match="integers"):
        fit(z, torch.tensor([1.0, 0.0]))
    with pytest.raises(InvalidModelError, match="at least one"):
        fit(z[:0], torch.tensor([], dtype=torch.int64))
    with pytest.raises(InvalidModelError, match="finite"):
        gl.torch.TemperatureScaling(math.inf)


@pytest.mark.parametrize("digits", [None, 1])  # 1: many equal scores
def test_the_binary_report_is_scikit_learns(digits):
    metrics = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn: pip install -e '.[dev]'")
    random = np.random.default_rng(4)
    y = random.random(300) < 0.3
    s = y + random.normal(size=300)
    s = s if digits is None else s.round(digits - 1)
    found = gl.torch.binary_report(s, y, 0.5)
    assert found.auroc.value == pytest.approx(metrics.roc_auc_score(y, s), abs=1e-12)
    assert found.auprc.value == pytest.approx(metrics.average_precision_score(y, s), abs=1e-12)
    assert found.sensitivity.value == pytest.approx(metrics.recall_score(y, s >= 0.5), abs=1e-12)
    assert found.specificity.value == pytest.approx(metrics.recall_score(~y, s < 0.5), abs=1e-12)
    assert "auroc" in str(found)


def test_the_binary_report_by_hand():
    found = gl.torch.binary_report([0.1, 0.4, 0.4, 0.8], [0, 0, 1, 1], 0.4)
    assert found.auroc.value == 3.5 / 4
    assert found.auprc.value == pytest.approx((1 + 2 / 3) / 2)
    assert (found.sensitivity.value, found.specificity.value) == (1.0, 0.5)
    # Wilson's interval at 2 of 2 is [n / (n + z^2), 1], at 1 of 2 it is 0.5 -+ z / (2 sqrt(n + z^2))
    square = 1.959963985**2
    assert found.sensitivity[1:] == pytest.approx((2 / (2 + square), 1.0), abs=1e-8)
    half = math.sqrt(square / (2 + square)) / 2
    assert found.specificity[1:] == pytest.approx((0.5 - half, 0.5 + half), abs=1e-8)
    apart = gl.torch.binary_report([0, 1, 2, 3], [0, 0, 1, 1], 1.5)
    assert apart.auroc.value == apart.auroc.high == 1
    assert 0 < apart.auroc.low < 0.9  # four cases prove little
    turned = gl.torch.binary_report([0, 1, 2, 3], [1, 1, 0, 0], 1.5).auroc
    assert turned == pytest.approx((0.0, 0.0, 1 - apart.auroc.low), abs=1e-12)


@pytest.mark.parametrize("area", [0.6, 0.9])
def test_intervals_cover_as_often_as_they_say(area):
    # exponential scores, for which Hanley and McNeil's Q1 and Q2 are exact: P(positive > negative) = r / (1 + r)
    random, m, n, repeats = np.random.default_rng(6), 25, 40, 1000
    y = np.repeat([1, 0], [m, n])
    ratio = area / (1 - area)
    sensitivity = math.exp(-1 / ratio)
    t = (np.arange(200_000) + 0.5) / 200_000  # recall; precision at it, in a sample's share of positives
    auprc = float((m * t / (m * t + n * t**ratio)).mean())
    covered = {"auroc": 0, "auprc": 0, "sensitivity": 0}
    for _ in range(repeats):
        s = random.exponential(np.where(y == 1, ratio, 1.0))
        found = gl.torch.binary_report(s, y, 1.0)
        for name, true in (("auroc", area), ("auprc", auprc), ("sensitivity", sensitivity)):
            covered[name] += getattr(found, name).low <= true <= getattr(found, name).high
    # 0.95 within 4 standard errors (0.0276) and 0.015 for what counts and asymptotics leave
    assert 0.907 < covered["auroc"] / repeats < 0.993, covered
    assert 0.907 < covered["sensitivity"] / repeats < 0.993, covered
    assert covered["auprc"] / repeats > 0.88, covered  # an approximation, as it says


@pytest.mark.parametrize(
    ("scores", "labels", "threshold", "words"),
    [
        ([0.1, 0.2], [0, 1, 1], 0.5, "one shape"),
        ([0.1, math.nan], [0, 1], 0.5, "finite"),
        ([0.1, 0.2], [0, 1], math.nan, "finite"),
        ([0.1, 0.2], [0, 2], 0.5, "each must occur"),
        ([0.1, 0.2], [1, 1], 0.5, "each must occur"),
        (["a", "b"], [1, 0], 0.5, "real numbers"),
    ],
)
def test_a_report_of_nonsense_is_refused(scores, labels, threshold, words):
    with pytest.raises(InvalidModelError, match=words):
        gl.torch.binary_report(scores, labels, threshold)
