"""What `glauber solve` shows while it runs: the best so far, the rate, and a picture of the temperatures."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import Progress
from rich.table import Table

from glauber.driver import Temperature
from glauber.solver import SolveProgress

MOST_ROWS = 16
BAR = 32
EVERY_SECONDS = 0.25


def temperature_table(temperatures: tuple[Temperature, ...]) -> Table:
    """A row for each temperature, or for every k-th: its beta, mean energy above the best, and exchanges accepted."""
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for name, side in (("beta", "right"), ("energy above best", "left"), ("", "right"), ("exchanges", "right")):
        table.add_column(name, justify=side)  # type: ignore[arg-type]
    step = -(-len(temperatures) // MOST_ROWS)
    rows = temperatures[::step]
    highest = max((row.energy for row in rows), default=0.0)
    for row in rows:
        length = round(BAR * max(0.0, row.energy) / highest) if highest > 0 else 0
        rate = "" if row.acceptance != row.acceptance else f"{row.acceptance:.0%}"  # the coldest has none
        table.add_row(f"{row.beta:.3g}", "█" * length, f"{row.energy:.4g}", rate)
    return table


class SolveView:
    """Takes a search's reports, four times a second at most."""

    def __init__(self, live: Live | None, bar: Progress, total: float, *, by_sweeps: bool) -> None:
        self._live, self._bar, self._by_sweeps = live, bar, by_sweeps
        self._task = bar.add_task("solving", total=total)
        self._shown = 0.0

    def __call__(self, now: SolveProgress) -> None:
        """Show a report."""
        if self._live is None or time.monotonic() - self._shown < EVERY_SECONDS:
            return
        self._shown = time.monotonic()
        rate = now.sweeps / now.seconds if now.seconds > 0 else 0.0
        done = float(now.sweeps) if self._by_sweeps else now.seconds
        self._bar.update(self._task, completed=done, description=f"best {now.objective:g}, {rate:.3g} sweeps/s")
        temperatures = now.temperatures()
        parts: list[RenderableType] = [self._bar]
        if temperatures:
            parts.append(temperature_table(temperatures))
        self._live.update(Group(*parts))


@contextmanager
def solve_view(console: Console, bar: Progress, total: float, *, by_sweeps: bool) -> Iterator[SolveView]:
    """The view on a terminal, and only there; it is gone when the search ends. The bar is not started by itself."""
    with Live(bar, console=console, refresh_per_second=8, transient=True) if not bar.disable else nullcontext() as live:
        yield SolveView(live, bar, total, by_sweeps=by_sweeps)
