"""A reduced run: an RBM on digits that the device trains reaches what exact gradients reach."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra torch: pip install -e '.[torch]'")

import glauber as gl  # noqa: E402
from scipy.stats import t as student  # noqa: E402

from benchmarks import rbm_exact  # noqa: E402

SEEDS = range(4)


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_device_reaches_the_exact_log_likelihood(one_thread):
    """The mean of the paired differences is 0 within Student's 99.9 % interval, and the training is worth many nats."""
    runs = {
        kind: [rbm_exact.train(kind, seed, 300) for seed in SEEDS]
        for kind in ("exact", "persistent, many sweeps", "two-phase")
    }
    images, _ = rbm_exact.spins(0)
    with gl.open_device(rbm_exact.ADDRESS) as device, torch.no_grad():
        start = float(rbm_exact.begin(images, device, 0).log_likelihood(images).mean())
    assert runs["exact"][0]["train"] > start + 5
    for kind in ("persistent, many sweeps", "two-phase"):
        assert all(run["jobs"] == 300 for run in runs[kind])
        for which in ("train", "test"):
            apart = np.array([one[which] - other[which] for one, other in zip(runs[kind], runs["exact"], strict=True)])
            error = apart.std(ddof=1) / len(SEEDS) ** 0.5
            assert abs(apart.mean()) < student.ppf(1 - 0.001 / 2, len(SEEDS) - 1) * error
            assert abs(apart.mean()) < 0.5


def test_the_start_is_the_same_for_all_and_intervals_are_students():
    images, held_out = rbm_exact.spins(3)
    assert (images.shape[1], len(images) + len(held_out)) == (64, 1797)
    with gl.open_device(rbm_exact.ADDRESS) as device:
        first, second = rbm_exact.begin(images, device, 3), rbm_exact.begin(images, device, 3)
    assert torch.equal(first.couplings, second.couplings)
    assert torch.allclose(torch.tanh(first.fields[:64]), images.mean(0).clamp(-0.95, 0.95), atol=1e-5)
    assert rbm_exact.interval([1.0, 2.0, 3.0]) == {"mean": 2.0, "half_width": pytest.approx(4.302653 / 3**0.5)}
