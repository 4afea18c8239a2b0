"""The playground's page: by Streamlit's own test driver, and in a real browser on a real server."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import glauber as gl
import httpx
import pytest

pytest.importorskip("streamlit", reason="the page needs Streamlit: pip install -e '.[playground]'")

from streamlit.testing.v1 import AppTest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
APP = ROOT / "examples" / "ising_playground" / "app.py"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def page_with(**state):
    test = AppTest.from_file(str(APP), default_timeout=60)
    for name, value in state.items():
        test.session_state[name] = value
    return test.run()


def errors_of(test):
    assert not test.exception
    return " ".join(error.value.replace("\\", "") for error in (*test.error, *test.warning))


def test_steps_and_seeds():
    shown = []
    for _ in range(2):
        test = page_with(fixed=True, seed=3, side=16)
        assert not errors_of(test)
        assert "Step" in test.info[0].value
        for _ in range(3):
            test.button(key="step").click().run()
        assert not errors_of(test)
        assert any("Seed 3, 3 jobs" in caption.value for caption in test.caption)
        shown.append(test.metric[0].value)
        test.slider(key="temperature").set_value(1.0).run()
        assert test.metric[0].value == shown[-1]  # moving a slider runs nothing
    assert shown[0] == shown[1]
    test.button(key="again").click().run()
    assert not test.metric


def test_hysteresis():
    test = page_with(fixed=True, seed=3, side=16, temperature=1.5, points=5)
    test.button(key="sweep").click().run()
    assert not errors_of(test)
    assert any("a spin and cycle" in caption.value for caption in test.caption)


@pytest.mark.parametrize(
    ("state", "step", "match"),
    [
        ({"address": "nowhere://x"}, False, "nowhere"),
        ({"address": "socket://127.0.0.1:9"}, False, "127.0.0.1"),
        ({"kind": "the device's own graph"}, False, "no published graph"),
        ({"kind": "a model file"}, False, "Choose a model file"),
        ({"address": "sim://kv260"}, True, "kv260|graph|edge"),
        ({"address": "sim://fujitsu-da1", "side": 8}, True, "beta"),
        ({"side": 1000, "sweeps": 100_000}, True, "sweeps at once"),
    ],
)
def test_what_a_device_cannot_do_is_a_sentence(state, step, match):
    test = page_with(**state)
    if step:
        assert not errors_of(test)
        test.button(key="step").click().run()
    assert re.search(match, errors_of(test)), errors_of(test)


# In a browser


def free_port():
    """Of those that no system gives to outgoing connections: it is still free when the page binds it, seconds later."""
    for _ in range(100):
        port = random.SystemRandom().randrange(20_000, 32_768)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port among a hundred")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A page on a free port of this computer; ended as Ctrl-C ends it, in time and with success."""
    port = free_port()
    log = tmp_path_factory.mktemp("page") / "log"
    command = [sys.executable, "-m", "streamlit", "run", str(APP), "--server.address", "127.0.0.1"]
    with log.open("w") as output:
        process = subprocess.Popen([*command, "--server.port", str(port)], stdout=output, stderr=output, cwd=ROOT)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                if httpx.get(f"http://127.0.0.1:{port}/_stcore/health", trust_env=False).status_code == 200:
                    break
            except httpx.TransportError:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(15) == 0, log.read_text()
        assert "Traceback" not in log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright, to drive a browser")
    if CHROMIUM is None:
        pytest.skip("no Chromium here; apt-get install chromium")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture(params=[(1280, 1000), (390, 844)], ids=["wide", "phone"])
def page(request, browser, server):
    context = browser.new_context(viewport=dict(zip(("width", "height"), request.param, strict=True)))
    opened = context.new_page()
    opened.set_default_timeout(30_000)
    complaints = []
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.goto(server)
    yield opened
    assert opened.evaluate("document.documentElement.scrollWidth") <= request.param[0]  # no sideways scrolling
    assert not complaints
    context.close()


def press(page, name):
    page.get_by_role("button", name=name, exact=True).click()


def open_sidebar(page):
    if page.viewport_size["width"] < 500:
        page.get_by_test_id("stExpandSidebarButton").click()


def close_sidebar(page):
    if page.viewport_size["width"] < 500:
        page.get_by_test_id("stSidebarCollapseButton").get_by_role("button").click()


def test_a_live_run_a_loop_and_an_export(page, tmp_path):
    press(page, "Step")
    page.wait_for_selector("text=after 20 sweeps")
    switch = page.get_by_test_id("stMain").get_by_test_id("stCheckbox").get_by_text("Run", exact=True)
    switch.click()
    page.wait_for_selector("text=after 100 sweeps")  # by itself
    switch.click()
    press(page, "Sweep the field")
    page.wait_for_selector("text=a spin and cycle")
    for chart in range(2):  # magnetisation and loop are drawn
        page.get_by_test_id("stVegaLiteChart").nth(chart).locator("canvas, svg").first.wait_for()
    with page.expect_download() as got:
        press(page, "Export the loop")
    with zipfile.ZipFile(got.value.path()) as archive:
        archive.extractall(tmp_path)
    done = subprocess.run([sys.executable, "replay.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "42 jobs: the same states, bit for bit" in done.stdout, done.stderr


def test_a_file_of_ones_own_and_a_bad_one(page, tmp_path):
    ring = gl.IsingModel.from_edges([(i, (i + 1) % 30, 1.0) for i in range(30)])
    gl.write_model(ring, tmp_path / "ring.json")
    (tmp_path / "bad.json").write_text("{")
    open_sidebar(page)
    page.get_by_label("System").click()
    page.get_by_role("option", name="a model file").click()
    page.wait_for_selector("text=Choose a model file")
    page.locator("input[type=file]").set_input_files(tmp_path / "bad.json")
    page.wait_for_selector("text=bad.json, line 1")
    page.locator("input[type=file]").set_input_files(tmp_path / "ring.json")
    page.wait_for_selector("text=bad.json, line 1", state="hidden")
    close_sidebar(page)
    press(page, "Step")
    page.wait_for_selector("text=30 spins after 20 sweeps")


def test_an_address_that_does_not_open(page):
    open_sidebar(page)
    box = page.get_by_role("combobox", name="Device")
    box.fill("nowhere://x")
    box.press("Enter")
    page.wait_for_selector("text=no driver for nowhere")
    assert "Traceback" not in page.inner_text("body")
