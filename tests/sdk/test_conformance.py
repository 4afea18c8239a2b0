"""`glauber conformance`: table, JSON and HTML, exit codes, and what the page says of clauses of each outcome."""

from __future__ import annotations

import html.parser
import json

import glauber as gl
import planted_drivers
import pytest
from glauber.cli import app
from glauber.testing import ClauseResult, ContractReport, run_contract
from glauber.testing.contract_html import as_html
from typer.testing import CliRunner


def invoke(*arguments, code=0):
    result = CliRunner().invoke(app, ["conformance", *(str(argument) for argument in arguments)])
    assert result.exit_code == code, result.output
    return result


class Page(html.parser.HTMLParser):
    """Every tag closed in order, nothing loaded from elsewhere, the text."""

    VOID = ("meta", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.words, self.names, self.attributes = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.attributes += [name for name, _ in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def test_a_right_device(tmp_path):
    page, file = tmp_path / "r.html", tmp_path / "r.json"
    shown = invoke("sim://pbit-king-64?seed=5", "--effort", "quick", "--html", page, "--json-file", file).stdout
    assert "0 failed" in shown
    assert "law of samples" in shown
    report = json.loads(file.read_text())
    assert report["passed"] is True
    clauses = {clause["name"]: clause for clause in report["clauses"]}
    assert len(clauses) >= 30
    assert clauses["law_of_samples"]["alpha"] == 1e-6
    assert clauses["law_of_samples"]["power"]["one dead p-bit"] > 0.9
    read = Page(page.read_text())
    assert not {"script", "link", "img", "iframe"} & set(read.names)
    assert not {"src", "href"} & set(read.attributes)
    for name, clause in clauses.items():
        assert name.replace("_", " ") in read.text
        assert clause["checks"].split(".")[0] in read.text
    assert "pbit-king-64 keeps the contract" in read.text
    assert "potts_states" in read.text  # why it was skipped
    assert "python" in read.text
    assert "width=device-width" in page.read_text()


def test_a_wrong_device_exits_with_1(monkeypatch):
    def open_wrong(address, wrap=None):
        if wrap is not None:
            raise gl.errors.DeviceNotFoundError("it has no transport")
        return gl.Device(planted_drivers.NoFacts(), address=address, seed=1)

    monkeypatch.setattr("glauber.device.open_device", open_wrong)
    monkeypatch.setattr("glauber.testing.contract.clauses", lambda _: ["test_provenance", "test_shapes_and_types"])
    result = invoke("sim://wrong", "--effort", "quick", "--json", code=1)
    report = json.loads(result.stdout)
    assert [clause["name"] for clause in report["clauses"] if clause["outcome"] == "failed"] == ["provenance"]


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (["sim://nothing"], 3, "no device 'nothing'"),
        (["sim://ideal", "--effort", "little"], 2, "quick"),
        (["sim://ideal", "--html", "/nowhere/r.html"], 2, "does not exist"),
    ],
)
def test_errors_come_before_the_work(arguments, code, what):
    result = invoke(*arguments, code=code)
    assert what in result.stderr
    as_json = invoke(*arguments, "--json", code=code)
    assert what in json.loads(as_json.stderr)["message"]


def test_the_page_shows_failures_first_and_escapes_what_it_shows():
    results = [
        ClauseResult("right", "All is well."),
        ClauseResult(
            "law", "Law.", "failed", "p-bit <3> & co", 1e-6, 1e-9, {"beta + 5 %": 0.5, "dead": 1.0}, 1000, 0.1
        ),
        ClauseResult("other", "Other.", "skipped", "not here"),
    ]
    report = ContractReport(
        "x://<y>", "y", [("name", "<y>")], "00", "2026-01-01", {"glauber": "0"}, "pc", "full", results
    )
    read = Page(as_html(report))
    assert "y breaks the contract" in read.text
    assert read.text.index("Failed (1)") < read.text.index("Passed (1)") < read.text.index("Skipped (1)")
    assert "p-bit <3> & co" in read.text
    assert "> 0.999" in read.text
    assert "0.500" in read.text
    assert "alpha 1e-06, p = 1e-09, 1,000 samples" in read.text
    assert not report.passed


def test_a_device_that_nothing_can_be_asked_of_does_not_pass():
    report = run_contract(lambda: gl.open_device("sim://cn101"), effort="quick")
    assert not report.failed, report.failed
    assert not report.passed
    assert "not tested: every clause was skipped" in Page(as_html(report)).text
