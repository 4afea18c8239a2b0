"""The lab's page: what it is made of, the figures behind it, and a real browser that uses it."""

from __future__ import annotations

import re
import shutil
import time

import glauber as gl
import httpx
import numpy as np
import pytest
from glauber.server.routes_lab import PAGE_FILES
from glauber.server.summary import Summary
from lab_bench import KING, LONG, Process

RING = gl.IsingModel.from_edges([(i, (i + 1) % 32, 1.0) for i in range(32)], {0: 0.5})


def drawn(schedule, **arguments):
    with gl.open_device("sim://ideal") as device:
        return device.submit(RING, schedule, seed=2, **arguments).result()


def test_the_page_needs_no_token_and_nothing_from_elsewhere(bench):
    for path in PAGE_FILES:
        answer = bench.get(path, who=None)
        assert answer.status_code == 200, path
        assert answer.headers["content-security-policy"].startswith("default-src 'self'")
        assert not re.search(r"""(src|href)=["']?(https?:)?//|style=|\son\w+=["']""", answer.text), (
            path
        )  # CSP forbids it
        assert "innerHTML" not in answer.text
    assert bench.get("/", who=None).headers["content-type"] == "text/html; charset=utf-8"
    assert bench.get("/page/../config.py", who=None).status_code in (401, 404)


def test_a_summary_is_of_the_result():
    result = drawn(gl.SamplingSchedule(n_samples=1000, n_chains=12, beta=0.8))
    found = Summary.of(result)
    assert sum(found.counts) == 12_000
    assert len(found.bin_edges) == len(found.counts) + 1
    assert np.array_equal(np.histogram(result.energies, found.bin_edges)[0], found.counts)
    levels = np.unique(result.energies)
    assert len(found.counts) == len(levels)  # few levels: a bar for each
    assert all(
        low < level < high for low, level, high in zip(found.bin_edges, levels, found.bin_edges[1:], strict=False)
    )
    assert len(found.traces) == 8
    assert found.sample_numbers[0] == 0
    assert found.sample_numbers[-1] == 999
    assert found.traces[3] == result.energies[3, found.sample_numbers].tolist()
    assert found.lowest_energy == result.energies.min()
    assert RING.energies(np.array(found.lowest_state)[None, None])[0, 0] == found.lowest_energy
    assert found.diagnostics_text == str(result.diagnostics())


def test_a_summary_without_samples_says_what_is_missing():
    found = Summary.of(drawn(gl.SamplingSchedule(n_samples=10), observe={"moments"}))
    assert (found.traces, found.counts, found.mean_energy, found.lowest_state) == ([], [], None, None)
    assert "not kept" in found.diagnostics_text
    found = Summary.of(drawn(gl.SamplingSchedule(n_samples=10), observe={"energies"}))
    assert len(found.traces[0]) == 10
    one = gl.IsingModel.from_edges([(0, 1, 1.0)])
    with gl.open_device("sim://ideal") as device:
        same = device.submit(one, gl.SamplingSchedule(n_samples=3), clamp={0: 1, 1: 1}).result()
    assert sum(Summary.of(same).counts) == 3  # one level only


def test_the_summary_of_a_job_over_http(bench):
    job_id = bench.submit().json()["id"]
    bench.wait(job_id)
    assert bench.get(f"/jobs/{job_id}/summary").json()["n_samples"] == 20
    assert bench.get(f"/jobs/{job_id}/summary", "read").status_code == 403  # another owner's
    running = bench.submit(LONG).json()["id"]
    answer = bench.get(f"/jobs/{running}/summary")
    assert answer.status_code == 409
    assert "nothing that job" in answer.json()["message"]
    bench.post(f"/jobs/{running}/cancel")
    bench.wait(running)
    assert bench.get(f"/jobs/{running}/summary").json()["error"] == "JobCancelledError"


# In a browser

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
HOSTILE = '<img src=x onerror="document.title=1">'
CONFIG = f"""\
store = "jobs.sqlite"
requests_per_minute = 1000000
[devices.ideal]
address = "sim://ideal"
title = '{HOSTILE}'
[devices.king]
address = "sim://pbit-king-64"
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with Process(tmp_path_factory.mktemp("lab"), CONFIG) as server:
        yield server


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright, to drive a browser")
    if CHROMIUM is None:
        pytest.skip("no Chromium here; apt-get install chromium")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield opened
        opened.close()


@pytest.fixture(params=[(1200, 900), (390, 844)], ids=["wide", "phone"])
def page(request, browser):
    context = browser.new_context(viewport=dict(zip(("width", "height"), request.param, strict=True)))
    opened = context.new_page()
    opened.set_default_timeout(20_000)
    opened.complaints = []
    opened.on("console", lambda message: opened.complaints.append(f"{message.text} {message.location}"))
    opened.on("pageerror", lambda error: opened.complaints.append(str(error)))
    yield opened
    assert opened.evaluate("document.documentElement.scrollWidth") <= request.param[0]  # no sideways scrolling
    assert opened.title() == "glauber lab"  # nothing hostile ran
    context.close()


def enter(page, lab, token, path=""):
    page.goto(f"{lab.url}/{path}")
    page.fill("#token", token)
    page.click("text=Show the lab")


@pytest.mark.slow
def test_from_a_token_to_a_finished_job(page, lab, monkeypatch):
    token = lab.token("alice")
    monkeypatch.setenv("GLAUBER_TOKEN", token)
    with gl.open_device(f"{lab.url}/devices/ideal") as device, gl.open_device(f"{lab.url}/devices/king") as king:
        king.submit(KING, gl.SamplingSchedule(n_samples=5)).result(60)
        # minutes on any machine: it must still run when Cancel is pressed
        schedule = gl.SamplingSchedule(n_samples=20_000, n_chains=64, sweeps_per_sample=30_000)
        job = device.submit(RING, schedule, seed=2**63 + 12345)
        enter(page, lab, token)
        page.wait_for_selector("text=Usage")
        assert HOSTILE in page.inner_text("main")  # as text
        page.click("main table a.id >> nth=0")
        page.wait_for_selector("svg polyline")
        first = page.eval_on_selector("progress", "bar => bar.value")
        page.wait_for_function("before => document.querySelector('progress').value > before", arg=first)
        assert page.eval_on_selector_all("svg rect.bar", "bars => bars.length") > 5
        facts = page.inner_text("main")
        assert str(2**63 + 12345) in facts  # not rounded
        assert "R-hat" in facts
        page.click("text=Cancel")
        page.wait_for_selector(".pill.cancelled")
        job.wait(10)
        done = device.submit(RING, gl.SamplingSchedule(n_samples=50, n_chains=4), seed=1)
        result = done.result(60)
        page.goto(f"{lab.url}/#/jobs/{done.id.rpartition('/')[2]}")
        page.wait_for_selector(f"text={result.energies.mean():.4g}")
        with page.expect_download() as got:
            page.click("text=Result as npz")
        again = gl.SampleSet.load(got.value.path())
        assert np.array_equal(again.packed, result.packed)
        page.click("main .facts a")
        page.wait_for_selector("text=open it by")
        assert "Any graph up to memory" in page.inner_text("main")
    early = [line for line in page.complaints if "409" in line and "/summary" in line]
    assert page.complaints == early  # a summary may be asked for before there is one


@pytest.mark.slow
def test_wrong_tokens_other_owners_and_a_server_that_is_gone(page, lab, monkeypatch):
    enter(page, lab, "glb_00000000_wrong")
    page.wait_for_selector("#trouble:not([hidden])")
    assert "token" in page.inner_text("#trouble")
    monkeypatch.setenv("GLAUBER_TOKEN", lab.token("bob"))
    with gl.open_device(f"{lab.url}/devices/king") as king:
        job = king.submit(KING, gl.SamplingSchedule(n_samples=5))
        job.result(60)
    page.fill("#token", lab.token("carla", "read"))
    page.click("text=Show the lab")
    page.wait_for_selector(f"text={job.id.rpartition('/')[2]}")
    page.goto(f"{lab.url}/#/jobs/{job.id.rpartition('/')[2]}")
    page.wait_for_selector("text=is bob's")  # the states of all, the data of one's own
    page.goto(f"{lab.url}/#/jobs/nothing")
    page.wait_for_selector("#trouble:not([hidden])")
    assert "no job nothing" in page.inner_text("#trouble")
    page.click("text=Forget token")
    page.wait_for_selector("form.token")
    assert page.evaluate("sessionStorage.length") == 0


@pytest.mark.slow
def test_the_page_lives_through_a_restart(page, tmp_path):
    with Process(tmp_path, CONFIG) as server:
        token = server.token("alice")
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/octet-stream"}
        schedule = gl.SamplingSchedule(n_samples=400, n_chains=64, sweeps_per_sample=40_000)
        content = gl.JobRequest(RING, schedule, seed=1).to_bytes()
        job_id = httpx.post(f"{server.url}/devices/ideal/jobs", content=content, headers=headers).json()["id"]
        enter(page, server, token, f"#/jobs/{job_id}")
        page.wait_for_selector("svg polyline")
        server.stop()
        page.wait_for_selector("text=does not answer")
        server.start()
        page.wait_for_selector("#trouble", state="hidden")
        before = page.eval_on_selector("progress", "bar => bar.value")
        end = time.monotonic() + 20
        while page.eval_on_selector("progress", "bar => bar.value") <= before:
            assert time.monotonic() < end
            time.sleep(0.1)
        server.stop()
