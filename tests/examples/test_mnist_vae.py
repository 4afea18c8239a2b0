"""The baseline against its own integral: with one latent dimension the likelihood can be had by quadrature."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("torch", reason="needs the extra torch: pip install -e '.[torch]'")

import torch
from glauber.errors import InvalidModelError, ModelNotSupportedError

from examples.mnist_ebm.vae import N_CLASSES, Vae, parameters_near

SIDE = 4


def sharp(seed=0):
    """A small one whose decoder says something: weights of unit size."""
    model = Vae(SIDE, 2, 8, seed, latent=1)
    with torch.no_grad():
        for value in model.decoder.parameters():
            value.mul_(3)
    return model


def by_quadrature(model, digit):
    """Latent points, their weights, and the log-odds of the pixels there."""
    z = torch.linspace(-9, 9, 4001)
    weight = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    digits = torch.nn.functional.one_hot(torch.full((len(z),), digit), N_CLASSES).float()
    with torch.no_grad():
        return weight, model.decoder(torch.cat([z[:, None], digits], 1))


def exact(model, image, digit):
    weight, logits = by_quadrature(model, digit)
    pixels = image.reshape(1, -1).float()
    log_pixels = (pixels * logits - torch.nn.functional.softplus(logits)).sum(1)
    return float(torch.logsumexp(log_pixels + weight.log(), 0)) - math.log(N_CLASSES)


def test_the_bound_comes_near_the_integral_from_below():
    model = sharp()
    images = torch.randint(0, 2, (6, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(6)
    truth = sum(exact(model, image, int(label)) for image, label in zip(images, labels, strict=True)) / 6
    found = torch.tensor([model.log_likelihood(images, labels).nats for _ in range(30)])
    quick = torch.tensor([model.log_likelihood(images, labels, quick=True).nats for _ in range(30)])
    elbo = torch.tensor([-float(model.loss(images, labels).detach()) - math.log(N_CLASSES) for _ in range(300)])
    error = float(found.std() / math.sqrt(30))
    assert float(found.mean()) == pytest.approx(truth, abs=4 * error + 0.02)  # 100 points leave a bias below that
    assert float(quick.mean()) < truth + 4 * float(quick.std()) / math.sqrt(30)
    assert float(elbo.mean()) + 4 * float(elbo.std()) / math.sqrt(300) < float(quick.mean())
    answer = model.log_likelihood(images, labels)
    assert answer.n_images == 6
    assert answer.standard_error > 0
    assert "100 latent points" in answer.how


def test_samples_have_the_means_of_the_integral():
    model, n = sharp(), 20_000
    weight, logits = by_quadrature(model, 3)
    chances = (weight[:, None] * logits.sigmoid()).sum(0)
    drawn = model.sample(n, torch.full((n,), 3)).reshape(n, -1).double().mean(0)
    z = (drawn - chances) / (chances * (1 - chances) / n).sqrt()
    assert float(z.abs().max()) < 4.5  # 16 pixels: one in 9,000 runs would miss
    modes = (weight[:, None] * (logits > 0)).sum(0)
    likelier = model.sample_modes(n, torch.full((n,), 3)).reshape(n, -1).double().mean(0)
    assert float((likelier - modes).abs().max()) < 4.5 * 0.5 / math.sqrt(n)


def test_training_learns_what_a_digit_looks_like():
    model = Vae(SIDE, 2, 16, 0, latent=2)
    labels = torch.arange(200) % 2
    images = torch.zeros(200, SIDE, SIDE, dtype=torch.uint8)
    images[labels == 1, 1] = 1  # a line
    adam = torch.optim.Adam(model.parameters(), lr=0.01)
    before = model.log_likelihood(images, labels, quick=True).nats
    for _ in range(200):
        adam.zero_grad()
        model.loss(images, labels).backward()
        adam.step()
    assert before < -8
    assert model.log_likelihood(images, labels, quick=True).nats > -0.5 - math.log(N_CLASSES)
    assert model.sample(50, torch.ones(50, dtype=torch.int64)).double().mean(0)[1].min() > 0.8


def test_a_checkpoint_goes_on_bit_for_bit():
    model = Vae(SIDE, 2, 8, 0)
    model.sample(3)
    other = Vae(SIDE, 2, 8, 5)
    other.load_state_dict(model.state_dict())
    assert torch.equal(model.sample(20), other.sample(20))


@pytest.mark.parametrize("n", [300_000, 7_000_000])
def test_it_has_as_many_parameters_as_asked(n):
    model = Vae(28, 2, parameters_near(n), 0)
    assert abs(model.n_parameters - n) < 0.02 * n


def test_what_it_cannot_is_refused():
    with pytest.raises(ModelNotSupportedError, match="n_levels=2"):
        Vae(28, 4, 8, 0)
    with pytest.raises(InvalidModelError, match="within 2 %"):
        parameters_near(1000)
    with pytest.raises(InvalidModelError, match="3 labels"):
        Vae(SIDE, 2, 8, 0).sample(3, torch.zeros(2))
