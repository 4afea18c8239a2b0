"""The report of a calibration: plots have units and error bars, nothing is from elsewhere, nothing hostile runs."""

from __future__ import annotations

import re
import shutil
import sys
from html import unescape
from html.parser import HTMLParser

import glauber as gl
import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="matplotlib is missing: pip install 'glauber[report]'")

from glauber.calibration.belief import believed
from glauber.calibration.report import as_html, save_html
from glauber.cli import app
from typer.testing import CliRunner

CHIP = "sim://pbit-king-64?chip=3&gain_spread=0.1&offset_spread=0.2&readout_error=0.02&n_dead=1"
HOSTILE = '<img src=x onerror="document.title=1">'
TITLES = {
    "p-bits' curves", "gain over the chip", "gain: how it scatters", "offset over the chip", "offset: how it scatters",
    "wrong readings", "what a correction does", "couplings: factor", "couplings: crosstalk", "memory of the noise",
    "inverse temperature", "since the record before",
}  # fmt: skip


@pytest.fixture(scope="module")
def spec():
    with gl.open_device("sim://pbit-king-64") as device:
        return device.spec


@pytest.fixture(scope="module")
def records():
    """A quick whole one, and an older one; few p-bits, few shots."""
    with gl.open_device(CHIP, seed=1) as device:
        record = device.calibrate(shots=200, n_sites=24)
        older = device.calibrate(["pbits"], shots=200, n_sites=24)
    with gl.open_device(f"{CHIP}&memory_sweeps=1", seed=1) as device:
        memory = device.calibrate(["memory"], shots=400, n_sites=24).memory
    assert memory.sweeps > 0
    return record.model_copy(update={"memory": memory}), older


@pytest.fixture(scope="module")
def page(records, spec):
    record, older = records
    hostile = record.model_copy(update={"address": HOSTILE, "notes": (HOSTILE,), "firmware": HOSTILE})
    return as_html(hostile, spec, older=older)


class Checked(HTMLParser):
    """Tags that close, ids, and references."""

    VOID = ("meta", "use", "path", "rect", "line", "image", "circle", "img")

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.references, self.figures = [], [], [], 0

    def handle_starttag(self, tag, attrs):
        self.figures += tag == "figure"
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href") or (value and "url(" in value):
                self.references.append(value)
            assert not name.startswith("on"), (tag, name)
        assert tag not in ("script", "link", "iframe", "img")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_from_elsewhere(page):
    checked = Checked()
    checked.feed(page)
    assert checked.open == []
    assert checked.figures == len(TITLES)
    assert len(set(checked.ids)) == len(checked.ids)  # plots do not borrow each other's marks
    for reference in checked.references:
        inside = re.findall(r"url\((#[^)]+)\)", reference) or [reference]
        assert all((part.startswith("#") and part[1:] in checked.ids) or part.startswith("data:") for part in inside)
    assert "http" not in page.replace("http-equiv", "")
    assert HOSTILE not in page
    assert page.count("&lt;img src=x") == 3


def test_every_plot_has_units_and_error_bars(page):
    figures = re.findall(r"<figure>(.*?)<figcaption><strong>(.*?)</strong>(.*?)</figcaption>", page, re.DOTALL)
    assert {unescape(title) for _, title, _ in figures} == TITLES
    unit = re.compile(r"\((1|%|number|sweeps|p-bit|units of J|1 / units of energy)\)$")
    for svg, title, caption in figures:
        texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
        assert sum(unit.search(text) is not None for text in texts) >= 2, (title, texts)  # both axes
        assert re.search(r"[Ee]rror bars|one standard uncertainty|68 %", caption), title
        assert "currentColor" in svg  # light and dark
        assert "#010203" not in svg


def test_the_curves_have_a_point_for_each_setting(page, records):
    """Of each chosen p-bit, twice: counted and residual."""
    pbits = records[0].pbits
    svg = re.search(r"<figure>(.*?)</figure>", page, re.DOTALL).group(1)
    assert len(re.findall(r"<use ", svg)) >= 2 * 3 * len(pbits.counts.shots)
    assert f"site {int(np.where(pbits.good, pbits.gain.array, 9).argmin())}" in svg


@pytest.mark.slow
def test_records_with_little_in_them(records, spec):
    record, older = records
    for parts in (("pbits",), ("couplings",), ("memory",), ("temperatures",), ()):
        kept = {name: getattr(record, name) if name in parts else None for name in ("pbits", "couplings", "memory")}
        kept["temperatures"] = record.temperatures if "temperatures" in parts else ()
        checked = Checked()
        checked.feed(as_html(record.model_copy(update=kept), spec if parts else None, older=older))
        assert (checked.figures > 0) == bool(parts)
    nothing = record.pbits.model_copy(update={"verdicts": ("dead",) * record.n_sites})
    text = as_html(record.model_copy(update={"pbits": nothing}))
    assert text.count("<td>dead</td>") == record.n_sites
    without = record.pbits.model_copy(update={"counts": None})
    assert "p-bits&#x27; curves" not in as_html(record.model_copy(update={"pbits": without}))


def test_it_is_written_whole(records, tmp_path):
    little = records[0].model_copy(update={"pbits": None, "couplings": None})
    with pytest.raises(FileNotFoundError, match="does not exist"):
        save_html(tmp_path / "no" / "r.html", little)
    save_html(tmp_path / "r.html", little)
    assert [file.name for file in tmp_path.iterdir()] == ["r.html"]


def test_without_matplotlib_the_install_line_is_said_before_the_work(tmp_path, monkeypatch):
    for name in ("plots", "report"):
        monkeypatch.delitem(sys.modules, f"glauber.calibration.{name}")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["calibrate", "sim://nope", "--no-history", "--html", "r.html"])
    assert done.exit_code == 1
    assert "pip install 'glauber[report]'" in done.stderr.replace("\n", " ")
    assert not list(tmp_path.iterdir())


def test_what_the_report_shows_of_couplings_is_not_more_than_is_there(records):
    """On a chip without coupling errors the numbers behind the plot are noise, and a correction leaves them alone."""
    assert believed(records[0].couplings.factor, 1.0) is None
    assert believed(records[0].couplings.crosstalk, 0.0) is None


# In a browser

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.slow
@pytest.mark.parametrize("width", [1200, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser(page, records, tmp_path, width, scheme):
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright, to drive a browser")
    if CHROMIUM is None:
        pytest.skip("no Chromium here; apt-get install chromium")
    (tmp_path / "r.html").write_text(page)
    complaints, asked = [], []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        opened = context.new_page()
        opened.on("console", lambda message: complaints.append(message.text))
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        opened.on("request", lambda request: asked.append(request.url))
        opened.goto(f"file://{tmp_path / 'r.html'}")
        assert opened.evaluate("document.documentElement.scrollWidth") <= width  # no sideways scrolling
        assert opened.title().startswith("Calibration ")  # nothing hostile ran
        sizes = opened.eval_on_selector_all("figure svg", "all => all.map(s => s.getBoundingClientRect().width)")
        assert len(sizes) == len(TITLES)
        assert min(sizes) > 300
        text = (
            "all => all.map(t => parseFloat(getComputedStyle(t).fontSize) * Math.hypot(t.getScreenCTM().a,"
            " t.getScreenCTM().b))"
        )
        assert min(opened.eval_on_selector_all("figure svg text", text)) > 8  # pixels
        ink, paper = opened.evaluate(
            "() => [getComputedStyle(document.querySelector('figure svg text')).fill,"
            " getComputedStyle(document.body).backgroundColor]"
        )
        light = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (ink, paper)]
        assert (light[0] < 200 < 600 < light[1]) if scheme == "light" else (light[1] < 200 < 600 < light[0])
        browser.close()
    assert complaints == []
    assert [url.rpartition("/")[2] for url in asked] == ["r.html"]  # nothing else
