"""A contract's report as one HTML page: nothing from elsewhere, legible on a phone and on paper."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from glauber.testing.acceptance.report import AcceptanceReport
from glauber.testing.contract_report import ClauseResult, ContractReport

STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #fff; --line: #ccc; --soft: #666;
  --passed: #176b2c; --failed: #b00020; --skipped: #6b5900; }
@media (prefers-color-scheme: dark) { :root { --ink: #eee; --paper: #161616; --line: #444; --soft: #aaa;
  --passed: #6fd08a; --failed: #ff8a94; --skipped: #e0c64a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: 0.5rem 0; } h2 { font-size: 1.15rem; margin: 2rem 0 0.5rem; }
h3 { font-size: 1rem; margin: 0; display: flex; gap: 0.75rem; justify-content: space-between; }
p { margin: 0.25rem 0; } .soft { color: var(--soft); font-size: 0.9rem; }
article { border-top: 1px solid var(--line); padding: 0.75rem 0; }
.passed { color: var(--passed); } .failed { color: var(--failed); } .skipped { color: var(--skipped); }
.verdict { font-size: 1.15rem; font-weight: 600; }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem; }
th, td { text-align: left; vertical-align: top; padding: 0.2rem 0.75rem 0.2rem 0; }
th { font-weight: 600; width: 12rem; } td.number { font-variant-numeric: tabular-nums; text-align: right; width: 6rem; }
@media (max-width: 30rem) { th { width: 7rem; } }
"""


def as_html(report: ContractReport) -> str:
    """The whole page."""
    passed = len([result for result in report.results if result.outcome == "passed"])
    verdict = "keeps the contract" if report.passed else "breaks the contract"
    if not report.passed and not report.failed:
        verdict = "was not tested: every clause was skipped"
    about = [
        ("address", report.address),
        ("device", report.device),
        ("description", f"digest {report.spec_hash}"),
        ("tested", f"{report.created}, {report.seconds:.1f} s, effort {report.effort}"),
        ("on", report.computer),
        ("with", ", ".join(f"{name} {value}" for name, value in report.versions.items())),
    ]
    title = f"Conformance of {report.address}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="verdict {"passed" if report.passed else "failed"}">{escape(report.device)} {verdict}</p>',
        f"<p>{passed} clauses passed, {len(report.failed)} failed, {len(report.skipped)} skipped. A right device fails"
        f" any of them with probability {report.alpha:.1g} at most.</p>",
        _rows(about),
    ]
    for heading, outcome in (("Failed", "failed"), ("Passed", "passed"), ("Skipped", "skipped")):
        chosen = [result for result in report.results if result.outcome == outcome]
        if chosen:
            parts += [f"<h2>{heading} ({len(chosen)})</h2>", *(_clause(result) for result in chosen)]
    if report.acceptance is not None:
        parts += _acceptance(report.acceptance)
    parts += ["<h2>Description of the device</h2>", _rows(report.spec)]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def _rows(rows: Iterable[tuple[str, str]]) -> str:
    cells = "".join(f'<tr><th scope="row">{escape(label)}</th><td>{escape(text)}</td></tr>' for label, text in rows)
    return f"<table>{cells}</table>"


def _clause(result: ClauseResult) -> str:
    name = escape(result.name.replace("_", " "))
    lines = [f'<h3><span>{name}</span><span class="{result.outcome}">{result.outcome}</span></h3>']
    lines.append(f"<p>{escape(result.checks)}</p>")
    if result.reason:
        strong = result.outcome == "failed"
        text = f"<strong>{escape(result.reason)}</strong>" if strong else escape(result.reason)
        lines.append(f'<p class="{result.outcome if strong else "soft"}">{text}</p>')
    figures = [f"{result.seconds:.2f} s"]
    if result.alpha is not None:
        figures = [f"alpha {result.alpha:g}", f"p = {result.p_value:.2g}", f"{result.samples:,} samples", *figures]
    lines.append(f'<p class="soft">{", ".join(figures)}</p>')
    if result.power:
        rows = "".join(
            f'<tr><td>{escape(fault)}</td><td class="number">{_power(value)}</td></tr>'
            for fault, value in result.power.items()
        )
        lines.append(f"<table><caption class='soft'>power against faults</caption>{rows}</table>")
    return f"<article>{''.join(lines)}</article>"


def _acceptance(report: AcceptanceReport) -> list[str]:
    """The power table and the last look's tests."""
    last = report.looks[-1]
    powers = [("fault", ("power", "99.9 % interval", "by"))]
    for each in report.power:
        interval = "" if each.low is None or each.high is None else f"{each.low:.3f} to {each.high:.3f}"
        by = each.source if not each.runs else f"{each.source}, {each.runs} devices"
        powers.append((each.fault, (_power(each.power), interval, by)))
    tests = [("test", ("p", "found"))]
    tests += [(test.name, (f"{test.p_value:.2g}", test.found)) for test in last.statistics]
    verdict = "accepted" if report.accepted else f"rejected: {report.suspicion}"
    return [
        "<h2>Acceptance</h2>",
        f'<p class="{"passed" if report.accepted else "failed"}">{escape(verdict)}</p>',
        f'<p class="soft">{len(report.looks)} looks, {report.samples:,} samples of each job, alpha {report.alpha:g} for'
        f" all; at the last, the least p-value times {len(last.statistics)} is {last.q:.2g}, rejected at"
        f" {last.reject_at:.2g} or less</p>",
        _columns(powers),
        _columns(tests),
    ]


def _columns(rows: Iterable[tuple[str, tuple[str, ...]]]) -> str:
    """A table whose first row is its heading."""
    lines = []
    for number, (label, cells) in enumerate(rows):
        kind = "td" if number else "th"
        rest = "".join(f"<{kind}>{escape(cell)}</{kind}>" for cell in cells)
        lines.append(f'<tr><th scope="row">{escape(label)}</th>{rest}</tr>')
    return f"<table>{''.join(lines)}</table>"


def _power(value: float) -> str:
    return "> 0.999" if value > 0.999 else f"{value:.3f}"
