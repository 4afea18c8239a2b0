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

from glauber.audit_file import AuditFile, verify_audit
from glauber.torch.attention import Attended, ThermodynamicAttention, attention_weights, standard_error
from glauber.torch.boltzmann import (
    BoltzmannMachine,
    GraphRestrictedBoltzmannMachine,
    RestrictedBoltzmannMachine,
)
from glauber.torch.checkpoint import load_checkpoint, save_checkpoint
from glauber.torch.deterministic import deterministic, is_deterministic
from glauber.torch.diffusion import DenoisingChain
from glauber.torch.discrimination import BinaryReport, Estimate, binary_report
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
from glauber.torch.safety import CRITICAL_TASKS, Advice, Answer, InputRule, ReviewRule, SafeModel, SeenRange
from glauber.torch.sampler import Sampler
from glauber.torch.temperature import DeviceTemperature
from glauber.torch.training import AdaptiveShare, EnergyTracker, PbitSchedule
from glauber.torch.uncertainty import (
    CalibrationErrors,
    Prediction,
    TemperatureScaling,
    brier,
    calibration_errors,
    decompose,
    predict,
)
from glauber.torch.usage import Usage

__all__ = [
    "CRITICAL_TASKS",
    "ESTIMATORS",
    "AdaptiveShare",
    "Advice",
    "Answer",
    "Attended",
    "AuditFile",
    "BinaryLayer",
    "BinaryReport",
    "BoltzmannMachine",
    "CalibrationErrors",
    "DenoisingChain",
    "DeviceTemperature",
    "Dropout",
    "EnergyTracker",
    "Estimate",
    "Estimator",
    "EstimatorError",
    "GradientReport",
    "GraphRestrictedBoltzmannMachine",
    "InputRule",
    "LogPartition",
    "Noise",
    "PbitLinear",
    "PbitSchedule",
    "PersistentChains",
    "Prediction",
    "RestrictedBoltzmannMachine",
    "ReviewRule",
    "SafeModel",
    "Sampler",
    "SeenRange",
    "TemperatureScaling",
    "ThermodynamicAttention",
    "Usage",
    "annealed_importance",
    "attention_weights",
    "binary_report",
    "brier",
    "calibration_errors",
    "contrastive_divergence",
    "decompose",
    "denoising_score_matching",
    "deterministic",
    "expected_cost",
    "gradient_probe",
    "info_nce",
    "is_deterministic",
    "load_checkpoint",
    "maximum_likelihood",
    "noise_contrastive",
    "predict",
    "save_checkpoint",
    "sliced_score_matching",
    "standard_error",
    "verify_audit",
]
