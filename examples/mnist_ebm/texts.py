"""How numbers are written in the report."""

from __future__ import annotations

from typing import Any


def plus_minus(value: float | None, error: float | None, digits: int = 1) -> str:
    """A value with its error."""
    if value is None:
        return "unknown"
    return f"{value:.{digits}f}" if error is None else f"{value:.{digits}f} ± {error:.{digits}f}"


def share(part: dict[str, Any]) -> str:
    """A share with its 95 % interval."""
    return f"{100 * part['share']:.1f} % ({100 * part['low']:.1f} to {100 * part['high']:.1f})"


def percent(share: float | None) -> str:
    """A share of pixels, or nothing."""
    return "" if share is None else f"{100 * share:.1f} % of pixels"


def number(value: float | None, how: str) -> str:
    """A number, or that it is unknown."""
    return "unknown" if value is None else format(value, how)


def after(value: int | None, last: int) -> str:
    """A number of sweeps, or that there were too few."""
    return f"not within {last:,}" if value is None else f"{value:,}"
