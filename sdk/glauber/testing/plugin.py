"""The pytest plug-in: run any test on any device with `--glauber-device ADDRESS`.

    def test_ferromagnet_aligns(glauber_device): ...

    @pytest.mark.glauber_requires(n_spins=64, kind="pbit")       # skipped, with the reason, where it does not fit
    def test_the_whole_lattice(glauber_device): ...

    def test_a_bad_cable(faulty):
        device = faulty(flips=1e-3, seed=1)                      # the run's device with faults; closed at the end

`--glauber-record FILE` writes all serial traffic with the run's device to a file, and `--glauber-replay FILE` plays the
device from it. The default device is `sim://ideal`, and the header of the run says so. Nothing of glauber is imported
until a test asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from glauber.device import Device
    from glauber.driver import Wrap

DEFAULT = "sim://ideal"
REQUIREMENTS = ("n_spins", "kind", "clamp", "deterministic", "chain_fields", "potts_states", "methods")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("glauber")
    group.addoption(
        "--glauber-device", default=DEFAULT, metavar="ADDRESS", help=f"device for tests (default {DEFAULT})"
    )
    group.addoption("--glauber-record", metavar="FILE", help="record all serial traffic with the device")
    group.addoption("--glauber-replay", metavar="FILE", help="play the device from recorded traffic")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and refuse options that contradict each other."""
    config.addinivalue_line(
        "markers", f"glauber_requires({'=, '.join(REQUIREMENTS)}=): skip the test on devices that do not have this"
    )
    if config.getoption("--glauber-record") and config.getoption("--glauber-replay"):
        raise pytest.UsageError(
            "--glauber-record and --glauber-replay exclude each other: a replay is recorded already"
        )


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say on which device the tests run."""
    lines = [f"glauber device: {config.getoption('--glauber-device')}"]
    for option, text in (("--glauber-record", "recorded to"), ("--glauber-replay", "replayed from")):
        path = config.getoption(option)
        lines += [f"glauber traffic: {text} {path}"] if path else []
    return lines


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A requirement that nobody knows is an error, not a test that always runs."""
    for item in items:
        for marker in item.iter_markers("glauber_requires"):
            unknown = sorted(set(marker.kwargs) - set(REQUIREMENTS))
            if unknown or marker.args:
                what = ", ".join(unknown) if unknown else f"{marker.args[0]!r} without a name"
                raise pytest.UsageError(
                    f"{item.nodeid}: glauber_requires does not know {what}; there are {', '.join(REQUIREMENTS)}"
                )


def _address(request: pytest.FixtureRequest) -> str:
    return str(request.config.getoption("--glauber-device"))


@pytest.fixture(scope="session")
def glauber_device(request: pytest.FixtureRequest) -> Iterator[Device]:
    """The device of the run, opened once."""
    from glauber.device import open_device

    record, replay = (request.config.getoption(f"--glauber-{what}") for what in ("record", "replay"))
    wrap: Wrap | None = None
    recorder = None
    if record:
        from glauber.testing.traffic import Recorder

        wrap = recorder = Recorder(str(record), _address(request))
    elif replay:
        from glauber.testing.traffic import Replay

        wrap = Replay(str(replay))
    with ExitStack() as stack:
        if recorder is not None:
            stack.callback(recorder.close)  # after the device, whose closing may be traffic too
        yield stack.enter_context(open_device(_address(request), wrap=wrap))


@pytest.fixture(autouse=True)
def _glauber_requires(request: pytest.FixtureRequest) -> None:
    """Skip where the device does not fit; the device is opened only for tests that are marked."""
    for marker in request.node.iter_markers("glauber_requires"):
        device: Device = request.getfixturevalue("glauber_device")
        for name, wanted in marker.kwargs.items():
            lacking = _lacking(device, name, wanted)
            if lacking:
                pytest.skip(f"{device.address} {lacking}, and the test requires {name}={wanted!r}")


def _lacking(device: Device, name: str, wanted: Any) -> str:
    """What the device has instead; empty if it fits."""
    spec, able = device.spec, device.spec.capabilities
    if name == "n_spins":
        enough = spec.n_sites >= wanted if spec.n_sites is not None else spec.any_graph
        return "" if enough else f"has {spec.n_sites or 'an unknown number of'} spins"
    if name == "kind":
        return "" if spec.kind == wanted else f"is of kind {spec.kind!r}"
    has = getattr(able, name)
    if name == "methods":
        missing = {wanted} if isinstance(wanted, str) else set(wanted)
        return "" if missing <= set(has) else f"has the methods {', '.join(has) or 'none'}"
    if name == "potts_states":
        return "" if has >= wanted else f"has p-dits of up to {has} states"
    return "" if has == wanted else f"has {name}={has}"


@pytest.fixture(scope="session")
def firmware() -> Iterator[Device]:
    """The controller firmware as a process on this computer, opened once; skipped where it cannot be had."""
    from glauber.device import open_device
    from glauber.errors import DeviceNotFoundError

    try:
        device = open_device("firmware://host")
    except DeviceNotFoundError as error:
        pytest.skip(f"no firmware: {error}")
    with device:
        yield device


@pytest.fixture
def faulty(request: pytest.FixtureRequest) -> Iterator[Callable[..., Device]]:
    """A function that opens the run's device with faults: arguments of LinkFaults and of DriverFaults, and a seed.

    Faults of the link need a device with one, and skip the test elsewhere. What was opened is closed after the test.
    """
    opened: list[Device] = []

    def open_faulty(*, seed: int = 0, **faults: Any) -> Device:
        device = _open_faulty(_address(request), seed, faults)
        opened.append(device)
        return device

    yield open_faulty
    for device in opened:
        device.close()


def _open_faulty(address: str, seed: int, faults: dict[str, Any]) -> Device:
    from glauber.device import Device, open_device
    from glauber.driver import JobService
    from glauber.errors import DeviceNotFoundError
    from glauber.registry import open_driver, parse_address
    from glauber.testing.faults import DriverFaults, FaultyDriver
    from glauber.testing.link_faults import LinkFaults

    of_driver = {field.name for field in fields(DriverFaults)}
    inside = {name: value for name, value in faults.items() if name in of_driver}
    outside = {name: value for name, value in faults.items() if name not in of_driver}
    wrap = LinkFaults(seed=seed, **outside) if outside else None
    try:
        if not inside:
            return open_device(address, wrap=wrap)
        parsed = parse_address(address)
        parameters = {name: value for name, value in parsed.parameters.items() if name != "seed"}
        driver = open_driver(replace(parsed, parameters=parameters), wrap=wrap)
    except DeviceNotFoundError as error:
        if wrap is None:
            raise
        pytest.skip(f"{', '.join(outside)} cannot be had: {error}")
    if isinstance(driver, JobService):
        pytest.skip(f"{address} is a service: faults of a machine cannot be put into it")
    return Device(FaultyDriver(driver, DriverFaults(**inside), seed), address=address)
