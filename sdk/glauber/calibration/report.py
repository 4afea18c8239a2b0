"""A calibration as one HTML page: nothing from elsewhere, legible on a phone and in the dark."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from glauber.calibration.drift import compare_records
from glauber.calibration.plots import Plot, all_plots
from glauber.calibration.record import CalibrationRecord
from glauber.calibration.summary import BETA_COLUMNS, beta_rows, number_rows
from glauber.formats import write_bytes
from glauber.spec import AnySpec

STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #fff; --line: #ccc; --soft: #595959; --bad: #b00020; }
@media (prefers-color-scheme: dark) { :root { --ink: #eee; --paper: #161616; --line: #444; --soft: #aaa;
  --bad: #ff8a94; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 84rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
@media (max-width: 30rem) { body { padding: 0.75rem; } }
h1 { font-size: 1.5rem; margin: 0.5rem 0; } h2 { font-size: 1.15rem; margin: 2rem 0 0.5rem; }
p { margin: 0.25rem 0; } .bad { color: var(--bad); font-weight: 600; }
table { border-collapse: collapse; font-size: 0.9rem; }
th, td { text-align: left; vertical-align: top; padding: 0.2rem 1rem 0.2rem 0; border-top: 1px solid var(--line); }
th { font-weight: 600; }
th, thead ~ tbody td { overflow-wrap: normal; }
td { font-variant-numeric: tabular-nums; }
@media (max-width: 30rem) { table { font-size: 0.8rem; } th, td { padding-right: 0.6rem; } }
.plots { display: grid; gap: 1.5rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); }
figure { margin: 0; } figure svg { width: 100%; height: auto; display: block; }
figcaption { color: var(--soft); font-size: 0.9rem; }
figcaption strong { color: var(--ink); display: block; font-size: 1rem; }
@media print { .plots { display: block; } figure { break-inside: avoid; } }
"""


def as_html(record: CalibrationRecord, spec: AnySpec | None = None, *, older: CalibrationRecord | None = None) -> str:
    """The whole page.

    Args:
        record: what was found.
        spec: of the device; its graph says where the p-bits are.
        older: an earlier record of the same device, to show what has changed since.

    Raises:
        MissingExtraError: matplotlib is not installed.
        CalibrationError: the older record is of another device.
    """
    positions = None if spec is None or spec.topology is None else spec.topology.positions()
    about = [
        ("device", record.device),
        ("address", record.address),
        ("description", f"digest {record.spec_hash}"),
        ("ended", f"{record.created}, after {record.seconds:.1f} s"),
        ("expires", record.expires or "never"),
        ("beta of the jobs", f"{record.beta:g}"),
        ("temperature", "not stated" if record.temperature_c is None else f"{record.temperature_c:g} degrees C"),
        ("firmware", record.firmware or "not stated"),
        ("with", ", ".join(f"{name} {value}" for name, value in record.software.items()) or "not stated"),
    ]
    title = f"Calibration {record.id} of {record.device}"
    parts = [f"<h1>{escape(title)}</h1>", _table(("", ""), about)]
    parts += [f'<p class="bad">{escape(note)}</p>' for note in record.notes]
    parts += ["<h2>Numbers</h2>", _table(("", "mean", "spread", "u of one", "unit"), number_rows(record))]
    if record.temperatures:
        parts += ["<h2>Beta by region</h2>", _table(BETA_COLUMNS, beta_rows(record))]
    if record.pbits is not None:
        parts += ["<h2>p-bits that do not work</h2>", _bad_sites(record)]
    if older is not None and older.pbits is not None and record.pbits is not None:
        lines = str(compare_records(older, record)).splitlines()
        parts += ["<h2>Since the record before</h2>", *(f"<p>{escape(line)}</p>" for line in lines)]
    parts.append('<h2>Plots</h2><div class="plots">')
    parts += [_plot(plot) for plot in all_plots(record, positions=positions, older=older)]
    parts.append("</div>")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def save_html(
    path: str | Path, record: CalibrationRecord, spec: AnySpec | None = None, *, older: CalibrationRecord | None = None
) -> None:
    """Write the page, whole or not at all; raises as `as_html`, and OSError."""
    write_bytes(path, as_html(record, spec, older=older).encode())


def _bad_sites(record: CalibrationRecord) -> str:
    assert record.pbits is not None
    verdicts = record.pbits.verdicts
    rows = [(str(site), verdict) for site, verdict in enumerate(verdicts) if verdict != "good"]
    return _table(("site", "verdict"), rows) if rows else "<p>none</p>"


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header) if any(header) else ""
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>' + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    )
    return f"<table>{f'<thead><tr>{head}</tr></thead>' if head else ''}<tbody>{body}</tbody></table>"


def _plot(plot: Plot) -> str:
    caption = f"<figcaption><strong>{escape(plot.title)}</strong>{escape(plot.caption)}</figcaption>"
    return f"<figure>{plot.svg}{caption}</figure>"
