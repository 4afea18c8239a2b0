"""PyTorch modules whose noise is a device's: the same model on the simulator, a twin, firmware, a GPU or a board.

    import glauber as gl

    with gl.open_device("sim://ideal?seed=7") as device:
        layer = gl.torch.PbitLinear(784, 256, device)
        spins = layer(images)                     # one device job, straight-through gradient

docs/torch.md shows the rest.
"""

from __future__ import annotations

from glauber.errors import missing_extra

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise missing_extra("torch", "torch", "glauber.torch") from error

from glauber.torch.attention import Attended, ThermodynamicAttention, attention_weights, standard_error
from glauber.torch.boltzmann import (
    BoltzmannMachine,
    GraphRestrictedBoltzmannMachine,
    RestrictedBoltzmannMachine,
)
from glauber.torch.checkpoint import load_checkpoint, save_checkpoint
from glauber.torch.deterministic import deterministic, is_deterministic
from glauber.torch.diffusion import DenoisingChain
from glauber.torch.estimators import ESTIMATORS, Estimator, expected_cost
from glauber.torch.layers import BinaryLayer, Dropout, Noise, PbitLinear
from glauber.torch.likelihood import LogPartition, annealed_importance
from glauber.torch.objectives import (
    PersistentChains,
    contrastive_divergence,
    denoising_score_matching,
    info_nce,
    maximum_likelihood,
    noise_contrastive,
    sliced_score_matching,
)
from glauber.torch.probe import EstimatorError, GradientReport, gradient_probe
from glauber.torch.sampler import Sampler, Usage
from glauber.torch.temperature import DeviceTemperature
from glauber.torch.training import AdaptiveShare, EnergyTracker, PbitSchedule

__all__ = [
    "ESTIMATORS",
    "AdaptiveShare",
    "Attended",
    "BinaryLayer",
    "BoltzmannMachine",
    "DenoisingChain",
    "DeviceTemperature",
    "Dropout",
    "EnergyTracker",
    "Estimator",
    "EstimatorError",
    "GradientReport",
    "GraphRestrictedBoltzmannMachine",
    "LogPartition",
    "Noise",
    "PbitLinear",
    "PbitSchedule",
    "PersistentChains",
    "RestrictedBoltzmannMachine",
    "Sampler",
    "ThermodynamicAttention",
    "Usage",
    "annealed_importance",
    "attention_weights",
    "contrastive_divergence",
    "denoising_score_matching",
    "deterministic",
    "expected_cost",
    "gradient_probe",
    "info_nce",
    "is_deterministic",
    "load_checkpoint",
    "maximum_likelihood",
    "noise_contrastive",
    "save_checkpoint",
    "sliced_score_matching",
    "standard_error",
]
