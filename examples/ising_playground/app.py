"""The page: streamlit run examples/ising_playground/app.py --server.address 127.0.0.1."""

from __future__ import annotations

import atexit
import math
import re
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # streamlit starts this file as a script

import glauber as gl
import streamlit as st
from glauber.errors import FileFormatError, GlauberError, InvalidModelError

from examples.ising_playground.devices import Devices, known_addresses
from examples.ising_playground.runs import Run, hysteresis, joules_in_words, loop_area
from examples.ising_playground.systems import KINDS, MAX_SIDE, lattice, model_from_upload, own_graph, picture

CRITICAL = 2 / math.log(1 + math.sqrt(2))  # Onsager's temperature of the square lattice, in units of J
REFRESH_S = 0.5
SHOWN_POINTS = 1000
RUN, LOOP, LOOP_RUN = "run", "loop", "loop run"


@st.cache_resource
def devices() -> Devices:
    """The devices of this process, closed when it ends."""
    opened = Devices()
    atexit.register(opened.close)
    return opened


@st.cache_data
def addresses() -> list[str]:
    """What can be opened; asked once."""
    return known_addresses()


def chosen_model(device: gl.Device) -> gl.IsingModel:
    """The model that the sidebar describes; raises GlauberError with a sentence to show."""
    kind = st.sidebar.selectbox("System", KINDS, key="kind")
    if kind == "a model file":
        upload = st.sidebar.file_uploader("Model (npz, json, Gset, QUBO, COO)", key="upload")
        if upload is None:
            raise FileFormatError("Choose a model file in the sidebar, in any format that glauber.read_model reads.")
        return model_from_upload(upload.name, upload.getvalue())
    coupling = float(
        st.sidebar.number_input("Coupling J", -10.0, 10.0, 1.0, 0.1, key="coupling", help="above 0: neighbours agree")
    )
    if kind == "the device's own graph":
        return own_graph(device, coupling)
    side = int(st.sidebar.number_input("Side", 3, MAX_SIDE, 64, key="side"))
    if kind == "square lattice, periodic" and coupling > 0:
        st.sidebar.caption(f"An infinite lattice orders below T = {CRITICAL * coupling:.3f}.")
    return lattice(side, coupling, periodic=kind == "square lattice, periodic")


def chosen_seed() -> int:
    """The fixed seed of reproducibility mode, or one drawn when the system was started."""
    if st.sidebar.toggle("Reproducibility mode", key="fixed", help="the same seed and steps give the same states"):
        return int(st.sidebar.number_input("Seed", 0, 2**31 - 1, 1, key="seed"))
    if "drawn_seed" not in st.session_state:
        st.session_state["drawn_seed"] = secrets.randbits(31)
    return int(st.session_state["drawn_seed"])


def plain(text: object) -> str:
    """Text whose characters mean nothing to Markdown."""
    return re.sub(r"([\\`*_{}\[\]()#+!|$<>~:])", r"\\\1", str(text))


def start_again() -> None:
    """Forget the run, and draw another seed."""
    for name in (RUN, LOOP, LOOP_RUN, "drawn_seed"):
        st.session_state.pop(name, None)
    stop()


def stop() -> None:
    """No more jobs by themselves; a callback, since the switch exists already."""
    st.session_state["live"] = False


def current_run(device: gl.Device, model: gl.IsingModel, seed: int) -> Run:
    """The run of this page; another device, model or seed begins a new one."""
    run = st.session_state.get(RUN)
    if run is None or run.device is not device or run.model != model or run.seed != seed:
        for name in (LOOP, LOOP_RUN):
            st.session_state.pop(name, None)
        run = st.session_state[RUN] = Run(device, model, seed)
    return run


def show_live(run: Run, temperature: float, field: float, n_sweeps: int, *, step: bool) -> None:
    """Advance the run if it is live or a step was asked for, and show where it is."""
    if step or st.session_state.get("live"):
        try:
            run.advance(temperature, field, n_sweeps)
        except GlauberError as error:
            st.error(plain(error))
    left, right = st.columns([1, 1])
    with left:
        if run.last is None:
            st.info("Press *Step* for one job, or *Run* for one after another.")
        else:
            st.image(picture(run.last), width="stretch", output_format="PNG")
            st.caption(f"{run.model.n_sites:,} spins after {run.sweeps[-1]:,} sweeps; up is yellow, down is blue.")
    with right:
        if run.magnetisation:
            st.metric("Magnetisation, mean spin", f"{run.magnetisation[-1]:+.4f}")
            points = list(zip(run.sweeps, run.magnetisation, strict=True))[-SHOWN_POINTS:]
            st.vega_lite_chart(None, curve(points, "sweeps", "mean spin"), width="stretch", key="trace")
            st.caption(f"Seed {run.seed}, {len(run.steps)} jobs.")
    st.markdown("**Energy used.** " + joules_in_words(run.reports))


def curve(points: Sequence[tuple[float, float]], x: str, y: str) -> dict[str, Any]:
    """A line through points in the order in which they came."""
    values = [{"k": k, x: first, y: second} for k, (first, second) in enumerate(points)]
    return {
        "data": {"values": values},
        "mark": {"type": "line", "point": len(points) < 100},
        "encoding": {
            "x": {"field": x, "type": "quantitative", "scale": {"zero": False, "nice": False}},
            "y": {"field": y, "type": "quantitative", "scale": {"domain": [-1, 1]}},
            "order": {"field": "k"},
        },
        "height": 260,
    }


def show_loop(run: Run, temperature: float, n_sweeps: int) -> None:
    """Sweep the field up and down, and draw the loop."""
    st.subheader("Hysteresis")
    st.caption("From all spins down, the field goes up and back, at the temperature and sweeps of the sidebar.")
    largest = float(st.slider("Largest field", 0.1, 5.0, 1.5, 0.1, key="largest"))
    points = int(st.slider("Steps each way", 5, 51, 21, key="points"))
    if st.button("Sweep the field", key="sweep", on_click=stop):
        loop_run = Run(run.device, run.model, run.seed, start="down")
        found: list[tuple[float, float]] = []
        bar = st.progress(0.0)
        try:
            for each in hysteresis(loop_run, temperature, largest, points, n_sweeps):
                found.append(each)
                bar.progress(len(found) / (2 * points))
        except GlauberError as error:
            st.error(plain(error))
        bar.empty()
        st.session_state[LOOP], st.session_state[LOOP_RUN] = found, loop_run
    loop = st.session_state.get(LOOP)
    if loop:
        st.vega_lite_chart(None, curve(loop, "field", "mean spin"), width="stretch", key="hysteresis")
        loop_run = st.session_state[LOOP_RUN]
        st.caption(
            f"Area {loop_area(loop):.3g} a spin and cycle, in the unit of J. {joules_in_words(loop_run.reports)}"
        )
        offer(loop_run, "loop")


def offer(run: Run, name: str) -> None:
    """The export of a run: made when the button is pressed, for a long run is long."""
    if not run.steps:
        return
    st.download_button(
        f"Export the {name}",
        run.export,
        f"ising-{name}.zip",
        "application/zip",
        key=f"export {name}",
        on_click="ignore",
        help="the model, all jobs with their seeds, and a script that draws the same states again, bit for bit",
    )


def main() -> None:
    """The whole page."""
    st.set_page_config("Ising playground", layout="wide")
    st.title("Ising playground")
    address = st.sidebar.selectbox(
        "Device", addresses(), key="address", accept_new_options=True, help="one of these, or any address"
    )
    try:
        device = devices().get(str(address or "").strip())
        model = chosen_model(device)
    except (GlauberError, OSError) as error:
        stop()
        (st.warning if isinstance(error, FileFormatError) else st.error)(plain(error))
        return
    if model.n_sites == 0:
        st.error(plain(InvalidModelError("the model has no spins")))
        return
    temperature = float(st.sidebar.slider("Temperature T = 1 / beta", 0.2, 6.0, 2.3, 0.05, key="temperature"))
    field = float(st.sidebar.slider("Field H on every spin", -3.0, 3.0, 0.0, 0.05, key="field"))
    n_sweeps = int(st.sidebar.number_input("Sweeps a job", 1, 100_000, 20, key="sweeps"))
    run = current_run(device, model, chosen_seed())
    first, second, third = st.columns(3)
    step = first.button("Step", key="step", width="stretch")
    live = second.toggle("Run", key="live")
    third.button("Start again", key="again", on_click=start_again, width="stretch")
    asked = [step]  # once: the fragment runs again by itself

    @st.fragment(run_every=REFRESH_S if live else None)
    def part() -> None:
        show_live(run, temperature, field, n_sweeps, step=bool(asked and asked.pop()))

    part()
    offer(run, "run")
    show_loop(run, temperature, n_sweeps)


main()
