"""The pytest plug-in: a fixture, an option, and a header that says which device it is."""

from __future__ import annotations

pytest_plugins = ["pytester"]

TEST = """
def test_ferromagnet_aligns(glauber_device):
    import glauber as gl
    model = gl.IsingModel.from_edges([(0, 1, 1.0)])
    samples = glauber_device.submit(model, gl.SamplingSchedule(n_samples=10, beta=50.0, n_warmup=5)).result(30)
    assert (samples.spins[..., 0] == samples.spins[..., 1]).all()
    print("device", glauber_device.address)
"""


def test_default_device_is_printed(pytester):
    pytester.makepyfile(TEST)
    result = pytester.runpytest_subprocess("-s")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*glauber device: sim://ideal*", "*device sim://ideal*"])


def test_another_device(pytester):
    pytester.makepyfile(TEST.replace("50.0", "8.0"))
    result = pytester.runpytest_subprocess("-s", "--glauber-device", "sim://pbit-king-64")
    result.stdout.fnmatch_lines(["*device sim://pbit-king-64*"])
    missing = pytester.runpytest_subprocess("--glauber-device", "sim://nothing")
    missing.assert_outcomes(errors=1)
