"""The weights that a machine holds: what must be written for the next job, and whether that comes too fast.

Where a device states what writing costs, a job whose model differs from the resident one in its fields only runs on the
resident program, with its own fields as the run's. By docs/machine.md a run's fields are integers on the program's step
in place of the program's own, so the samples are those of a program of its own, bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from glauber.compile import AnyProgram
from glauber.prepare import Prepared
from glauber.spec import SpecBase


@dataclass(frozen=True, slots=True, eq=False)
class Loading:
    """How a job gets onto the machine.

    Attributes:
        load: the program must be written.
        fields: in place of the resident program's, int32 (1, n_sites) or (1, n_sites, n_states); None: the run's own.
        nodes: whose fields are rewritten though the weights are not.
        facts: what the result's provenance should say of it.
    """

    load: bool
    fields: NDArray[np.int32] | None = None
    nodes: int = 0
    facts: Mapping[str, str] = field(default_factory=dict)


class Residency:
    """What one machine holds. Used by one thread at a time.

    Args:
        spec: of the machine.
        warn: called with a sentence when weights are rewritten faster than the described device can: at the second
            rewrite of such a series, and whenever its length has doubled.
        clock: seconds, monotonic.
    """

    def __init__(
        self, spec: SpecBase, warn: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name, self._limit = spec.name, spec.costs.max_reflash_hz
        self._warn, self._clock = warn, clock
        self._program: AnyProgram | None = None
        self._held: NDArray[np.int32] | None = None  # the fields it has now
        self._series, self._began, self._last = 0, 0.0, 0.0
        self._weights = ""

    @property
    def weights(self) -> str:
        """`Prepared.weights` of what is loaded; empty where nothing is, or where writing is not said to cost."""
        return self._weights if self._program is not None else ""

    def forget(self) -> None:
        """Nothing is sure to be there any more."""
        self._program = self._held = None

    def plan(self, prepared: Prepared) -> Loading:
        """What must be written for a job; `ran` or `forget` must follow."""
        program, run, resident = prepared.loaded, prepared.driven, self._program
        same = resident is not None and resident.key == program.key
        alike = same or (resident is not None and prepared.weights != "" and prepared.weights == self._weights)
        if not alike or resident is None:
            return Loading(True, facts=self._rewriting())
        fields = None
        if not same and run.fields is None:
            fields = program.field[None]
        wanted = program.field if run.fields is None else run.fields[0]
        chains_of_their_own = run.fields is not None and len(run.fields) > 1  # these are counted by the job itself
        nodes = 0 if chains_of_their_own else _changed(self._held, wanted)
        facts = {} if same else {"weights": "resident: only the fields were written, as the run's"}
        return Loading(False, fields, nodes, facts)

    def ran(self, prepared: Prepared, loading: Loading) -> None:
        """The job ran as planned."""
        if loading.load or self._program is None:
            self._program, self._weights = prepared.loaded, prepared.weights
        self._held = prepared.loaded.field if prepared.driven.fields is None else prepared.driven.fields[-1]

    def _rewriting(self) -> dict[str, str]:
        """Count a rewrite; what to say if the described device could not have made it yet."""
        if self._limit is None:
            return {}
        now, interval = self._clock(), 1.0 / self._limit.best
        if self._series and now - self._last < interval:
            self._series += 1
        else:
            self._series, self._began = 1, now
        self._last = now
        if self._series < 2:
            return {}
        text = (
            f"weights were rewritten {self._series:,} times within {now - self._began:.3g} s; {self._name} allows"
            f" {self._limit.best:g} a second ({self._limit.provenance}), so there it would take"
            f" {(self._series - 1) * interval:,.4g} s"
        )
        if self._series & (self._series - 1) == 0:
            self._warn(text)
        return {"reflash": text}


def _changed(held: NDArray[np.int32] | None, wanted: NDArray[np.int32]) -> int:
    """Nodes whose fields are not those that are held."""
    if held is wanted:
        return 0
    if held is None:
        return len(wanted)
    different = held != wanted
    return int((different if different.ndim == 1 else different.any(axis=1)).sum())
