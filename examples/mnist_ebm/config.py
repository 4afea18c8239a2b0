"""A run as a file: what data, which model, how it is trained. One TOML file in configs/ for each."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(_Strict):
    """Which images; see data.load."""

    n_levels: Literal[2, 4, 16] = 2
    side: int = Field(default=28, ge=2, le=28)
    digits: tuple[int, ...] | None = None
    n_train: int | None = None
    n_test: int | None = None


class _Trained(_Strict):
    """How negatives are drawn: `n_sweeps` from data ("cd"), or by persistent chains, alone or as tempered ladders."""

    objective: Literal["cd", "pcd", "tempered"] = "pcd"
    n_sweeps: int = Field(default=1, ge=1)
    n_chains: int = Field(default=128, ge=1)
    sample_sweeps: int = Field(default=1000, ge=1)
    n_temperatures: int = Field(default=1000, ge=20)


class GridConfig(_Trained):
    """A Potts grid; see grid.GridModel."""

    kind: Literal["grid"]
    neighbours: Literal[4, 8] = 4
    tied: bool = False


class _Laddered(_Trained):
    @model_validator(mode="after")
    def _exchanges(self) -> Self:
        if self.objective == "tempered" and self.n_sweeps < 2:
            raise ValueError("tempered chains need n_sweeps of 2 or more; see glauber.torch.PersistentChains")
        return self


class RbmConfig(_Laddered):
    """A restricted Boltzmann machine; see machines.RbmModel."""

    kind: Literal["rbm"]
    n_hidden: int = Field(default=500, ge=1)
    deviation: float = Field(default=0.01, gt=0)


class DeepConfig(_Laddered):
    """A sparse deep machine on the graph of a device of the catalogue; see machines.DeepModel."""

    kind: Literal["deep"]
    chip: str = "niazi-2024"
    label_copies: int = Field(default=5, ge=1)


class ChainConfig(_Strict):
    """A denoising chain; see chain.ChainModel."""

    kind: Literal["chain"]
    n_hidden: int = Field(default=256, ge=1)
    n_steps: int = Field(default=4, ge=1)
    kept: float | tuple[float, ...] = 0.1
    n_sweeps: int = Field(default=10, ge=1)
    sample_sweeps: int = Field(default=40, ge=1)
    n_paths: int = Field(default=4, ge=1)
    n_temperatures: int = Field(default=200, ge=2)


class VaeConfig(_Strict):
    """The baseline; see vae.Vae. About as many parameters as asked."""

    kind: Literal["vae"]
    n_parameters: int = Field(ge=1000)
    n_latent: int = Field(default=32, ge=1)


ModelConfig = Annotated[GridConfig | RbmConfig | DeepConfig | ChainConfig | VaeConfig, Field(discriminator="kind")]


class TrainingConfig(_Strict):
    """Adam on minibatches.

    Attributes:
        epochs: over the training images.
        batch: images of an update.
        learning_rate: falls linearly to 0 over the last half.
        penalty: times the sum of squares of the couplings, and of the fields that a chain's label gives.
        clip: largest norm of the gradient; longer ones are cut to it.
        check_every: updates between two looks at the validation images.
        n_check: validation images looked at.
        patience: looks without a better likelihood, by more than two standard errors, after which training stops.
        checkpoint_every: updates between two checkpoints.
    """

    epochs: float = Field(default=5, gt=0)
    batch: int = Field(default=128, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    penalty: float = Field(default=1e-5, ge=0)
    clip: float = Field(default=100.0, gt=0)
    check_every: int = Field(default=500, ge=1)
    n_check: int = Field(default=200, ge=2)
    patience: int = Field(default=5, ge=1)
    checkpoint_every: int = Field(default=200, ge=1)


class RunConfig(_Strict):
    """One trained model and its seeds.

    Attributes:
        title: what it is called in tables.
        device: address of what draws.
        seeds: one training each.
        n_samples: images drawn to judge it.
        n_likelihood: test images for its likelihood.
    """

    title: str
    device: str = "sim://ideal"
    seeds: tuple[int, ...] = (0,)
    n_samples: int = Field(default=10_000, ge=20)
    n_likelihood: int = Field(default=1000, ge=2)
    data: DataConfig = DataConfig()
    model: ModelConfig
    training: TrainingConfig = TrainingConfig()

    @property
    def digest(self) -> str:
        """Of everything that decides the result of one seed."""
        return hashlib.sha256(self.model_dump_json(exclude={"title", "seeds"}).encode()).hexdigest()[:16]


def read_config(path: Path) -> RunConfig:
    """A configuration file.

    Raises:
        ValueError: it is no TOML, or says something that a run does not have; the message names file and field.
    """
    try:
        return RunConfig.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from error
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise ValueError(f"{path}: {wrong}") from error
