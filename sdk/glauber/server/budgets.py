"""What an owner may use in a day, midnight to midnight UTC.

Asked when a job is submitted: what the owner's jobs that ended today have used, plus the estimates of those that are
queued or running, plus the estimate of the new one must stay within the budget. A job that was accepted is allowed to
run, even if jobs before it took longer than estimated: who was told yes is not told no an hour later. What an estimate
does not know (no measured rate and no published figure) counts as nothing, and the next submission sees what the job
really took.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from glauber.device import Device
from glauber.errors import BudgetExceededError
from glauber.job import Job
from glauber.request import JobRequest
from glauber.server.config import OwnerConfig
from glauber.store import JobStore


def midnight(now: float) -> float:
    """The beginning of the UTC day, as Unix seconds."""
    return datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0).timestamp()


def check_budget(
    owner: str,
    budget: OwnerConfig,
    request: JobRequest,
    device: Device,
    pending: Iterable[tuple[Device, Job]],
    *,
    store: JobStore,
    now: float,
) -> None:
    """Refuse a request that its owner's day has no room for.

    Raises:
        BudgetExceededError: saying what is used, what is queued, and what this job would add.
    """
    used, waiting = store.usage(since=midnight(now), owner=owner), list(pending)
    if budget.seconds_per_day is not None:
        _check(
            owner,
            "s",
            budget.seconds_per_day,
            used=sum(line.seconds or 0.0 for line in used),
            queued=sum(max(where.outlooks.seconds(job.request) or 0.0, job.progress.seconds) for where, job in waiting),
            new=device.outlooks.seconds(request) or 0.0,
        )
    if budget.joules_per_day is not None:
        _check(
            owner,
            "J",
            budget.joules_per_day,
            used=sum(line.joules or 0.0 for line in used),
            queued=sum(where.outlooks.joules(job.request) or 0.0 for where, job in waiting),
            new=device.outlooks.joules(request) or 0.0,
        )


def _check(owner: str, unit: str, limit: float, *, used: float, queued: float, new: float) -> None:
    if used < limit and used + queued + new <= limit:
        return
    raise BudgetExceededError(
        f"{owner} may use {limit:g} {unit} a day (UTC): {used:.3g} {unit} are used, {queued:.3g} {unit} are estimated"
        f" for what is queued, and this job would take about {new:.3g} {unit}; submit less, or after midnight UTC"
    )
