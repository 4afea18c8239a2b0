"""The baseline that no probabilistic chip is needed for: a variational autoencoder, conditional on the digit."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from glauber.errors import InvalidModelError, ModelNotSupportedError
from torch import Tensor, nn
from torch.nn import functional

from examples.mnist_ebm.models import ImageModel, Likelihood

N_CLASSES = 10
LATENT = 32
IMPORTANCE = 100
"""Latent points for the likelihood of an image."""
QUICK = 10
"""The same for early stopping."""
ROWS = 2000
"""Images times latent points that are decoded at once."""


class Vae(ImageModel):
    """Variational autoencoder (Kingma and Welling 2014) of black-and-white images, given the digit.

    p(x | y) = integral of N(z; 0, 1) times the product of Bernoulli(x_i; decoder(z, y)_i). Encoder and decoder have two
    hidden layers of the same width. It runs on no device: its randomness is a torch generator, which its state_dict
    holds, so that a checkpoint goes on bit for bit.

    Args:
        side: pixels along a side.
        n_levels: 2; images of others are judged in black and white, so the baseline learns that.
        hidden: units of each hidden layer; parameters_near finds one for a number of parameters.
        seed: of the first weights and of all that is drawn.
        latent: latent dimensions.

    Raises:
        ModelNotSupportedError: n_levels is not 2.
        InvalidModelError: a size below 1.
    """

    kind: ClassVar[str] = "vae"
    conditional: ClassVar[bool] = True

    def __init__(self, side: int, n_levels: int, hidden: int, seed: int, latent: int = LATENT) -> None:
        super().__init__(side, n_levels)
        if n_levels != 2:
            raise ModelNotSupportedError(
                f"the autoencoder's pixels are black or white, not of {n_levels} levels: load the data with n_levels=2"
            )
        if min(side, hidden, latent) < 1:
            raise InvalidModelError(f"side, hidden and latent must be at least 1, not {side}, {hidden} and {latent}")
        self.latent = latent
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.encoder = _layers(side**2 + N_CLASSES, hidden, 2 * latent)
            self.decoder = _layers(latent + N_CLASSES, hidden, side**2)
        self._generator = torch.Generator().manual_seed(seed)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Minus the evidence lower bound, nats, mean over images: one latent point each, divergence in closed form."""
        pixels, digits = self._inputs(images, labels)
        mean, log_deviation = self._encode(pixels, digits)
        latent = mean + log_deviation.exp() * self._normal(*mean.shape)
        divergence = (mean**2 + (2 * log_deviation).exp() - 1).sum(1) / 2 - log_deviation.sum(1)
        return (divergence - self._log_pixels(pixels, self._decode(latent, digits))).mean()

    @torch.no_grad()
    def sample(self, n: int, labels: Tensor | None = None) -> Tensor:
        """New images: bits drawn with the decoder's probabilities, as the model's distribution has it.

        Args:
            n: how many.
            labels: digits (n,); None draws them evenly.
        """
        chances = self._chances(n, labels)
        drawn = torch.rand(chances.shape, generator=self._generator) < chances
        return drawn.to(torch.uint8).reshape(n, self.side, self.side)

    @torch.no_grad()
    def sample_modes(self, n: int, labels: Tensor | None = None) -> Tensor:
        """New images whose pixels are the likelier of black and white, given a drawn latent point.

        Smoother than what `sample` draws and what autoencoders are mostly shown by, but not samples of the model.
        """
        return (self._chances(n, labels) > 0.5).to(torch.uint8).reshape(n, self.side, self.side)

    @torch.no_grad()
    def log_likelihood(self, images: Tensor, labels: Tensor, *, quick: bool = False) -> Likelihood:
        """Importance-weighted bound on log p(x, y), p(y) = 1/10 (Burda et al. 2016): expected to be below it."""
        k = QUICK if quick else IMPORTANCE
        at_once = ROWS // k
        parts = [slice(start, start + at_once) for start in range(0, len(images), at_once)]
        given = torch.cat([self._importance_bound(*self._inputs(images[part], labels[part]), k) for part in parts])
        found = given - math.log(N_CLASSES)
        error = float(found.std() / math.sqrt(len(found))) if len(found) > 1 else math.nan
        how = f"lower bound with the label, importance-weighted, {k} latent points"
        return Likelihood(float(found.mean()), error, how, len(found))

    def get_extra_state(self) -> Any:
        """Where the generator is."""
        return self._generator.get_state()

    def set_extra_state(self, state: Any) -> None:
        """Go on from there."""
        self._generator.set_state(state)

    def _importance_bound(self, pixels: Tensor, digits: Tensor, k: int) -> Tensor:
        """Log of the mean of p(x, z | y) / q(z | x, y) over k points z of q, by image."""
        mean, log_deviation = self._encode(pixels, digits)
        noise = self._normal(k, *mean.shape)
        latent = mean + log_deviation.exp() * noise
        log_ratio = (noise**2 - latent**2).sum(2) / 2 + log_deviation.sum(1)  # log N(z; 0, 1) - log q(z | x, y)
        logits = self._decode(latent, digits.expand(k, *digits.shape))
        return torch.logsumexp(log_ratio + self._log_pixels(pixels.expand_as(logits), logits), 0) - math.log(k)

    def _inputs(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        pixels = images.reshape(len(images), -1).to(torch.float32)
        return pixels, functional.one_hot(labels.to(torch.int64), N_CLASSES).to(torch.float32)

    def _encode(self, pixels: Tensor, digits: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of q(z | x, y)."""
        mean, log_deviation = self.encoder(torch.cat([2 * pixels - 1, digits], -1)).chunk(2, -1)
        return mean, log_deviation

    def _decode(self, latent: Tensor, digits: Tensor) -> Tensor:
        """Log-odds of the pixels."""
        logits: Tensor = self.decoder(torch.cat([latent, digits], -1))
        return logits

    def _log_pixels(self, pixels: Tensor, logits: Tensor) -> Tensor:
        return -functional.binary_cross_entropy_with_logits(logits, pixels, reduction="none").sum(-1)

    def _chances(self, n: int, labels: Tensor | None) -> Tensor:
        if labels is None:
            labels = torch.randint(N_CLASSES, (n,), generator=self._generator)
        if labels.shape != (n,):
            raise InvalidModelError(f"for {n} samples, {n} labels are needed, not {tuple(labels.shape)}")
        digits = functional.one_hot(labels.to(torch.int64), N_CLASSES).to(torch.float32)
        return self._decode(self._normal(n, self.latent), digits).sigmoid()

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._generator)


def _layers(n_in: int, hidden: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(n_in, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, n_out)
    )


def parameters_near(n: int, side: int = 28, latent: int = LATENT) -> int:
    """Hidden width for which an autoencoder has nearly n parameters.

    The count is 2 h^2 + (d_in + d_out + 4) h + outputs, summed over both networks, so the nearest width is the rounded
    root.

    Raises:
        InvalidModelError: no width comes within 2 %.
    """
    linear = (side**2 + N_CLASSES + 2 * latent) + (latent + N_CLASSES + side**2) + 4
    constant = 2 * latent + side**2
    hidden = max(1, round((math.sqrt(linear**2 + 8 * max(0, n - constant)) - linear) / 4))
    count = 2 * hidden**2 + linear * hidden + constant
    if abs(count - n) > 0.02 * n:
        raise InvalidModelError(
            f"no autoencoder of {side}x{side} pixels has {n} parameters within 2 %; the nearest has {count}"
        )
    return hidden
