"""A result as a page shows it: energies along the chains, their histogram, diagnostics, joules. JSON, and small."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import BaseModel

from glauber.errors import GlauberError
from glauber.samples import SampleSet

SHOWN_CHAINS = 8
SHOWN_POINTS = 240
"""Of each chain: about as many as a picture has pixels to tell them apart."""
BINS = 40
MAX_LEVELS = 60
DIAGNOSED_VALUES = 30_000_000
"""Spins of a result up to which diagnostics are computed for a page, which takes seconds."""


class Summary(BaseModel):
    """What a page shows of a result, whole or partial."""

    n_chains: int
    n_samples: int
    stopped_by: str | None
    mean_energy: float | None
    lowest_energy: float | None
    lowest_state: list[int] | None
    """The state of lowest energy, of models up to 4,096 sites."""
    sample_numbers: list[int]
    """Of the points of each trace, from 0."""
    traces: list[list[float]]
    """Energies along the first chains."""
    bin_edges: list[float]
    """Of the histogram of all energies; one more than counts."""
    counts: list[int]
    diagnostics: dict[str, Any] | None
    diagnostics_text: str
    energy_report: dict[str, Any]
    energy_text: str
    timing: dict[str, float]

    @classmethod
    def of(cls, result: SampleSet) -> Summary:
        """Of a result; computes its energies."""
        energies = result.energies if result.packed is not None else result.stored_energies
        shown: dict[str, Any] = {"sample_numbers": [], "traces": [], "bin_edges": [], "counts": []}
        shown |= {"mean_energy": None, "lowest_energy": None, "lowest_state": None}
        if energies is not None and energies.size:
            at = np.unique(np.linspace(0, result.n_samples - 1, SHOWN_POINTS).round().astype(int))
            counts, edges = np.histogram(energies, bins=_bins(energies))
            shown = {
                "mean_energy": float(energies.mean()),
                "lowest_energy": float(energies.min()),
                "lowest_state": _lowest(result, energies),
                "sample_numbers": at.tolist(),
                "traces": energies[:SHOWN_CHAINS, at].tolist(),
                "bin_edges": edges.tolist(),
                "counts": counts.tolist(),
            }
        diagnostics, text = _diagnosed(result)
        return cls(
            n_chains=result.n_chains,
            n_samples=result.n_samples,
            stopped_by=result.provenance.stopped_by,
            diagnostics=diagnostics,
            diagnostics_text=text,
            energy_report=result.energy_report.as_dict(),
            energy_text=str(result.energy_report),
            timing={name: float(value) for name, value in result.timing.items()},
            **shown,
        )


def _bins(energies: np.ndarray[Any, Any]) -> int | np.ndarray[Any, Any]:
    """Edges between the values where there are few, so that each has a bar of its own; else a number of bins."""
    values = np.unique(np.round(energies, 9))
    if not 2 <= len(values) <= MAX_LEVELS:
        return BINS
    between = (values[1:] + values[:-1]) / 2
    half = np.diff(values).min() / 2
    return np.concatenate([[values[0] - half], between, [values[-1] + half]])


def _lowest(result: SampleSet, energies: np.ndarray[Any, Any]) -> list[int] | None:
    if result.packed is None or result.model.n_sites > 4096:
        return None
    chain, sample = np.unravel_index(int(energies.argmin()), energies.shape)
    found: list[int] = result.states[chain, sample].tolist()
    return found


def _diagnosed(result: SampleSet) -> tuple[dict[str, Any] | None, str]:
    if result.packed is None:
        return None, "the samples were not kept, so nothing can be said of mixing"
    if result.n_chains * result.n_samples * result.model.n_sites > DIAGNOSED_VALUES:
        return None, "too large for this page: take the result, and call diagnostics() on it"
    try:
        found = result.diagnostics()
        return found.as_dict(), str(found)
    except GlauberError as error:
        return None, str(error)
