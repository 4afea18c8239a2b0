"""The plots of a calibration's report, as SVG for a page: ink of the page's colour, nothing from elsewhere."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glauber.calibration.memory import LEAST_RIGHT, remembered
from glauber.calibration.record import CalibrationRecord, Measured, PbitCalibration
from glauber.calibration.sigmoid import curve
from glauber.errors import missing_extra

try:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
except ModuleNotFoundError as error:
    raise missing_extra("matplotlib", "report", "a calibration's report") from error

INK = "#010203"
"""Stands for the page's own colour until the picture is done."""
BLUE, ORANGE, GREEN, RED = "#3b82c4", "#d9822b", "#3a9a5b", "#d0455a"
"""Legible on white and on black."""
MANY = 1000
"""From so many points on they are one picture inside the plot."""
DRAWS = 64
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 9,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    **{f"axes.spines.{side}": False for side in ("top", "right")},
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.2,
    "lines.markersize": 3,
}

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Plot:
    """A picture with what to know of it.

    Attributes:
        title: of it.
        caption: what is drawn, and what its error bars are.
        svg: an <svg> element.
    """

    title: str
    caption: str
    svg: str


def _figure(rows: int = 1, height: float = 2.9, ratios: Sequence[float] = (1,)) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(4.3, height), layout="constrained")
    axes = figure.subplots(rows, 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": ratios})
    return figure, list(axes[:, 0])


def _svg(figure: Figure, name: str) -> str:
    """The <svg> element alone."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):  # ids must not meet those of another plot on the page
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r' (xmlns(:xlink)?|version)="[^"]*"', "", text)
    text = re.sub(r'<svg width="[^"]*" height="[^"]*"', f'<svg role="img" aria-label="{name}"', text)
    return text.replace(INK, "currentColor").strip()


def _bars(axes: Axes, x: Any, y: Any, yerr: Any, colour: str, **more: Any) -> None:
    axes.errorbar(x, y, yerr=yerr, fmt="o", color=colour, elinewidth=0.8, rasterized=np.size(y) > MANY, **more)


def curves(pbits: PbitCalibration) -> Plot | None:
    """A few p-bits: what was counted, and the fit."""
    good = np.flatnonzero(pbits.good)
    if pbits.counts is None or not len(good):
        return None
    by_gain = good[np.argsort(pbits.gain.array[good])]
    offset = good[np.abs(pbits.offset.array[good]).argmax()]
    chosen = {"lowest gain": by_gain[0], "median": by_gain[len(by_gain) // 2], "highest gain": by_gain[-1]}
    chosen |= {"largest offset": offset} if offset not in chosen.values() else {}
    arguments = np.array(pbits.counts.arguments)
    shares = np.array(pbits.counts.ups) / np.array(pbits.counts.shots)[:, None]
    shots = np.array(pbits.counts.shots, dtype=np.float64)
    parameters = (pbits.gain, pbits.offset, pbits.up_as_down, pbits.down_as_up)
    line = np.linspace(-1.1, 1.1, 201)[:, None] * np.abs(arguments).max()
    figure, (above, below) = _figure(2, 3.7, (2, 1))
    for colour, (name, site) in zip((BLUE, GREEN, ORANGE, RED), chosen.items(), strict=False):
        theta = np.array([[measured.array[site]] for measured in parameters])
        u = np.array([[measured.u[site]] for measured in parameters])
        p, gradient = curve(line, theta)
        band = np.sqrt(((gradient * u[:, None]) ** 2).sum(axis=0))[:, 0]
        above.plot(line[:, 0], p[:, 0], color=colour)
        above.fill_between(line[:, 0], p[:, 0] - band, p[:, 0] + band, color=colour, alpha=0.3, linewidth=0)
        at, share = arguments[:, site], shares[:, site]
        error = np.sqrt(np.maximum(share * (1 - share), 1 / shots) / shots)
        _bars(above, at, share, error, colour, label=f"{name}: site {site}")
        fitted = curve(at[:, None], theta)[0][:, 0]
        _bars(below, at, 100 * (share - fitted), 100 * error, colour)
    above.set_ylabel("P(read +1)  (1)")
    above.legend(loc="upper left", handletextpad=0.2)
    below.axhline(0, color=INK, linewidth=0.6)
    below.set_ylabel("counted - fit  (%)")
    below.set_xlabel("argument beta h  (1)")
    return Plot(
        "p-bits' curves",
        "Points: counted, error bars of the counts. Lines: the fit, band one standard uncertainty of its four numbers.",
        _svg(figure, "curves"),
    )


def by_place(name: str, unit: str, pbits: PbitCalibration, positions: Floats | None) -> Plot:
    """Gain or offset over the chip, or by site where the chip has no plane."""
    measured: Measured = getattr(pbits, name)
    good = pbits.good
    u = float(np.median(measured.u[good]))
    label = f"{name}  ({unit})"
    if positions is None or positions.shape[1] != 2:
        figure, (axes,) = _figure()
        _bars(axes, np.flatnonzero(good), measured.array[good], measured.u[good], BLUE)
        axes.set_xlabel("site  (number)")
        axes.set_ylabel(label)
        return Plot(f"{name} by site", "Error bars: one standard uncertainty.", _svg(figure, name))
    figure, (axes,) = _figure(height=3.3)
    centre = 1.0 if name == "gain" else 0.0
    reach = float(np.abs(measured.array[good] - centre).max()) or 1.0
    places = positions[: len(good)]
    size = float(np.clip(11000 / len(good), 4, 160))
    row, column = places[:, 0], places[:, 1]
    drawn = axes.scatter(
        column[good], row[good], c=measured.array[good], s=size, cmap="RdBu_r", vmin=centre - reach,
        vmax=centre + reach, edgecolors=INK, linewidths=0.4, marker="s", rasterized=len(good) > MANY,
    )  # fmt: skip
    if (~good).any():
        axes.scatter(column[~good], row[~good], marker="x", color=RED, s=size / 2, label="does not work")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1))
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.set_xlabel("column  (p-bit)")
    axes.set_ylabel("row  (p-bit)")
    bar = figure.colorbar(drawn, ax=axes, label=label, shrink=0.9)
    bar.ax.errorbar(
        [0.5], [centre], yerr=[[u], [u]], xerr=None, color="black", capsize=3, transform=bar.ax.get_yaxis_transform()
    )
    return Plot(
        f"{name} over the chip",
        f"Mark in the colour bar: one standard uncertainty to either side, {u:.2g} (median).",
        _svg(figure, name),
    )


def histogram(name: str, unit: str, pbits: PbitCalibration) -> Plot:
    """How a number scatters over the p-bits."""
    measured: Measured = getattr(pbits, name)
    values, u = measured.array[pbits.good], np.maximum(measured.u[pbits.good], 1e-12)
    edges = np.histogram_bin_edges(values, bins="fd" if len(values) > 20 else 5)
    counts, _ = np.histogram(values, edges)
    from scipy.stats import norm

    share = np.diff(norm.cdf((edges[:, None] - values) / u), axis=0)  # of each p-bit in each bin
    error = np.sqrt((share * (1 - share)).sum(axis=1))
    figure, (axes,) = _figure()
    middle = (edges[1:] + edges[:-1]) / 2
    axes.bar(middle, counts, np.diff(edges), yerr=error, color=BLUE, alpha=0.7, ecolor=INK, capsize=2)
    top = 1.08 * float((counts + error).max())
    width = float(np.median(u))
    axes.errorbar([values.mean()], [top], xerr=[width], fmt="o", color=ORANGE, capsize=3, label="mean, median u")
    axes.legend(loc="upper right")
    axes.set_ylim(0, 1.2 * top)
    axes.set_xlabel(f"{name}  ({unit})")
    axes.set_ylabel("p-bits  (number)")
    return Plot(
        f"{name}: how it scatters",
        "Error bars: by how many p-bits a bin may be off, from their standard uncertainties; on top, the median of"
        " those.",
        _svg(figure, f"{name} histogram"),
    )


def readings(pbits: PbitCalibration) -> Plot:
    """Wrong readings of each p-bit."""
    sites = np.flatnonzero(pbits.good)
    figure, (axes,) = _figure()
    for shift, colour, measured, label in (
        (-0.15, BLUE, pbits.up_as_down, "+1 read as -1"),
        (0.15, ORANGE, pbits.down_as_up, "-1 read as +1"),
    ):
        _bars(axes, sites + shift, 100 * measured.array[sites], 100 * measured.u[sites], colour, label=label)
    axes.set_ylim(0, 1.2 * axes.get_ylim()[1])
    axes.legend(loc="upper left", ncols=2)
    axes.set_xlabel("site  (number)")
    axes.set_ylabel("wrong readings  (%)")
    return Plot("wrong readings", "Error bars: one standard uncertainty.", _svg(figure, "readings"))


def both_ways(name: str, unit: str, record: CalibrationRecord) -> Plot | None:
    """A coupling's factor or crosstalk from i to j over that from j to i."""
    if record.couplings is None or not record.couplings.pairs:
        return None
    measured: Measured = getattr(record.couplings, name)
    place = {pair: k for k, pair in enumerate(record.couplings.pairs)}
    pairs = [(k, place[j, i]) for (i, j), k in place.items() if i < j and (j, i) in place]
    if not pairs:
        return None
    forth, back = np.array(pairs).T
    ideal = 1.0 if name == "factor" else 0.0
    figure, (axes,) = _figure(height=3.4)
    axes.errorbar(
        measured.array[forth], measured.array[back], xerr=measured.u[forth], yerr=measured.u[back], fmt="o", color=BLUE,
        elinewidth=0.6, alpha=0.6, rasterized=len(forth) > MANY // 2,
    )  # fmt: skip
    axes.axline((ideal, ideal), slope=1, color=INK, linewidth=0.6, linestyle=":", label="the same both ways")
    axes.plot([ideal], [ideal], "+", color=RED, markersize=12, label="ideal")
    axes.legend(loc="upper left")
    axes.set_xlabel(f"{name} of i from j, i < j  ({unit})")
    axes.set_ylabel(f"{name} of j from i  ({unit})")
    about = "of what was programmed" if name == "factor" else "with nothing programmed, in the model's units"
    return Plot(
        f"couplings: {name}",
        f"{about[0].upper()}{about[1:]}. Error bars: one standard uncertainty.",
        _svg(figure, name),
    )


def memory(record: CalibrationRecord) -> Plot | None:
    """Correlation by lag with the fit."""
    found = record.memory
    if found is None:
        return None
    lags = np.array(found.lags, dtype=np.float64)
    values, u = found.correlation.array, np.maximum(found.correlation.u, 1e-12)
    figure, (axes,) = _figure()
    _bars(axes, lags, values, u, BLUE, label="measured")
    if found.sweeps:
        low, high = max(1e-3, found.sweeps - found.uncertainty), found.sweeps + found.uncertainty
        law = remembered(lags, found.sweeps)
        scale = float(np.clip((law * values / u**2).sum() / (law**2 / u**2).sum(), LEAST_RIGHT, 1.0))
        line = np.linspace(0.5, lags[-1], 200)
        axes.plot(line, scale * remembered(line, found.sweeps), color=ORANGE, label="fit")
        axes.fill_between(
            line, scale * remembered(line, low), scale * remembered(line, high), color=ORANGE, alpha=0.3, linewidth=0
        )
    axes.axhline(0, color=INK, linewidth=0.6)
    axes.legend()
    axes.set_xlabel("lag  (sweeps)")
    axes.set_ylabel("correlation of a p-bit  (1)")
    said = f"{found.sweeps:.2f} +- {found.uncertainty:.2f} sweeps" if found.sweeps else (
        f"none seen: below {found.uncertainty:.2f} sweeps or so"
    )  # fmt: skip
    return Plot(
        "memory of the noise",
        f"Correlation time: {said}. Error bars and band: one standard uncertainty.",
        _svg(figure, "memory"),
    )


def betas(record: CalibrationRecord) -> Plot | None:
    """Beta of the regions by three estimators."""
    if not record.temperatures:
        return None
    figure, (axes,) = _figure()
    for shift, colour, name in (
        (-0.2, BLUE, "pseudolikelihood"),
        (0.0, ORANGE, "mean energy"),
        (0.2, GREEN, "log ratios"),
    ):
        rows = [
            (k + shift, *region.estimates[name]) for k, region in enumerate(record.temperatures)
            if name in region.estimates
        ]  # fmt: skip
        if rows:
            x, value, u = np.array(rows).T
            _bars(axes, x, value, 1.96 * u, colour, label=name)
    axes.axhline(record.beta, color=INK, linewidth=0.8, linestyle=":")
    axes.set_xticks(range(len(record.temperatures)), [str(region.sites[0]) for region in record.temperatures])
    axes.margins(y=0.35)
    axes.legend(loc="upper center", ncols=3, columnspacing=0.8, handletextpad=0.2)
    axes.set_xlabel("region, by its first site  (number)")
    axes.set_ylabel("beta  (1 / units of energy)")
    return Plot(
        "inverse temperature",
        "Error bars: 95 %. Dotted: what was asked. Estimators that disagree mean a law that is Boltzmann's at no"
        " temperature; the first one takes readings as they come.",
        _svg(figure, "beta"),
    )


def drift(older: CalibrationRecord, record: CalibrationRecord) -> Plot | None:
    """Change of gain and offset since an older record."""
    if older.pbits is None or record.pbits is None:
        return None
    both = older.pbits.good & record.pbits.good
    if not both.any():
        return None
    figure, panels = _figure(2, 3.7, (1, 1))
    for axes, name, colour in zip(panels, ("gain", "offset"), (BLUE, ORANGE), strict=True):
        before, after = getattr(older.pbits, name), getattr(record.pbits, name)
        step, u = (after.array - before.array)[both], np.hypot(after.u, before.u)[both]
        _bars(axes, np.flatnonzero(both), step, u, colour)
        axes.axhline(0, color=INK, linewidth=0.6)
        axes.set_ylabel(f"change of {name}  (1)")
    panels[1].set_xlabel("site  (number)")
    return Plot(
        "since the record before", "Error bars: one standard uncertainty of the difference.", _svg(figure, "drift")
    )


def correction(pbits: PbitCalibration) -> Plot | None:
    """By how much P(+1) is off, as it is and corrected."""
    good = pbits.good
    if not good.any():
        return None
    rng = np.random.default_rng(1)
    at = np.linspace(-3, 3, 61)[:, None]
    ideal = 1 / (1 + np.exp(-2 * at))
    gain, offset, wrong_up, wrong_down = (
        measured.array[good] for measured in (pbits.gain, pbits.offset, pbits.up_as_down, pbits.down_as_up)
    )
    as_read = np.abs(curve(at, np.stack([gain, offset, wrong_up, wrong_down]))[0] - ideal)
    shape = (DRAWS, int(good.sum()))  # what the uncertainties leave of gain and offset
    rest_gain = 1 + (pbits.gain.u[good] / gain) * rng.normal(size=shape)
    rest_offset = pbits.offset.u[good] * rng.normal(size=shape)
    none = np.zeros(rest_gain.size)
    left = np.abs(curve(at, np.stack([rest_gain.ravel(), rest_offset.ravel(), none, none]))[0] - ideal)
    figure, (axes,) = _figure()
    for values, colour, label in ((as_read, BLUE, "as it is"), (left, GREEN, "corrected")):
        low, middle, high = 100 * np.quantile(values, (0.16, 0.5, 0.84), axis=1)
        axes.plot(at[:, 0], middle, color=colour, label=label)
        axes.fill_between(at[:, 0], low, high, color=colour, alpha=0.25, linewidth=0)
    axes.set_ylim(bottom=0)
    axes.legend()
    axes.set_xlabel("argument beta (h + sum J s)  (1)")
    axes.set_ylabel("|P(+1) - ideal|  (%)")
    return Plot(
        "what a correction does",
        "Median and 68 % of the p-bits. Corrected: gains and offsets as far as their uncertainties allow, wrong"
        " readings taken out; rounding to the device's codes is not in it.",
        _svg(figure, "correction"),
    )


def all_plots(
    record: CalibrationRecord, *, positions: Floats | None = None, older: CalibrationRecord | None = None
) -> list[Plot]:
    """Those for which the record has numbers."""
    found: list[Plot | None] = []
    with matplotlib.rc_context(STYLE):
        if record.pbits is not None and record.pbits.good.any():
            found.append(curves(record.pbits))
            for name in ("gain", "offset"):
                found += [by_place(name, "1", record.pbits, positions), histogram(name, "1", record.pbits)]
            found += [readings(record.pbits), correction(record.pbits)]
        found += [both_ways("factor", "1", record), both_ways("crosstalk", "units of J", record)]
        found += [memory(record), betas(record)]
        found += [drift(older, record)] if older is not None else []
    return [plot for plot in found if plot is not None]
