"""Schedules of p-bits, books of joules, and checkpoints that go on bit for bit."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap

import glauber as gl
import numpy as np
import pytest
from glauber.errors import FileFormatError, InvalidModelError

torch = pytest.importorskip("torch", reason="needs the extra torch: pip install -e '.[torch]'")


@pytest.mark.parametrize("shape", ["linear", "cosine", "exponential", "step", "sigmoid"])
def test_courses_rise_from_low_to_high(shape):
    course = gl.torch.PbitSchedule(100, 0.1, 0.9, shape, n_warmup=20)
    shares = [course.share(step) for step in range(130)]
    assert shares[:20] == pytest.approx([0.1] * 20)
    assert shares[20] == pytest.approx(0.1)
    assert shares[100:] == pytest.approx([0.9] * 30)
    assert (np.diff(shares) >= -1e-12).all()
    middle = {"linear": 0.5, "cosine": 0.5, "exponential": 0.3, "step": 0.42, "sigmoid": 0.5}[shape]
    assert shares[60] == pytest.approx(middle)


def two_layers(device):
    return torch.nn.Sequential(gl.torch.PbitLinear(4, 10, device), gl.torch.PbitLinear(10, 10, device))


def test_a_course_sets_layers_together_or_one_after_the_other(device):
    net = two_layers(device)
    course = gl.torch.PbitSchedule(20, 0.0, 1.0)
    assert course.apply(net, 5) == 0.25
    assert [layer.bits.share for layer in net] == [0.25, 0.25]
    assert course.layer_wise(net, 5) == [0.5, 0.0]
    assert course.layer_wise(net, 15) == [1.0, 0.5]
    assert course.layer_wise(net, 40) == [1.0, 1.0]


def test_the_adaptive_share_follows_the_measured_signal(device):
    """Gradients of known mean and spread: signal to noise is found within its error and moves the share."""
    net = torch.nn.Sequential(torch.nn.Linear(50, 40, bias=False), gl.torch.BinaryLayer(device))
    generator = torch.Generator().manual_seed(0)
    share = gl.torch.AdaptiveShare(net, target=0.1, window=20, low=0.2, rate=0.1)
    assert net[1].share == 0.2

    def steps(mean):
        for _ in range(20):
            net[0].weight.grad = mean + torch.randn(40, 50, generator=generator)
            share.update()

    steps(1.0)
    assert share.signal_to_noise == pytest.approx(1.0, abs=0.05)
    assert net[1].share == pytest.approx(0.3)
    steps(0.1)
    assert share.signal_to_noise == pytest.approx(0.01, abs=0.01)
    assert net[1].share == pytest.approx(0.2)
    for _ in range(3):
        share.update()
    saved = share.state_dict()
    other = gl.torch.AdaptiveShare(net, target=0.1, window=20, low=0.2, rate=0.1)
    other.load_state_dict(saved)
    assert (other.share, other.signal_to_noise) == (share.share, share.signal_to_noise)
    for _ in range(17):  # both end the window that was begun, neither with the other's sums
        net[0].weight.grad = 0.3 + torch.randn(40, 50, generator=generator)
        share.update()
        other.update()
    assert other.signal_to_noise == share.signal_to_noise
    assert (other.state_dict()["seen"], saved["seen"]) == (0, 3)


def test_the_adaptive_share_takes_gradients_that_come_and_go_and_half_precision(device):
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), gl.torch.BinaryLayer(device)).half()
    share = gl.torch.AdaptiveShare(net, window=2)
    net[0].weight.grad = torch.full((4, 3), 600.0, dtype=torch.float16)  # its square is no half-precision number
    share.update()
    net[0].bias.grad = torch.ones(4, dtype=torch.float16)
    share.update()
    # mean (600, 1/2), spread 1/2 in each of the four: 12 x 360000 + 4/4 less half the trace, 4/2, over the trace
    assert share.signal_to_noise == pytest.approx((12 * 360_000 + 1 - 1) / 2)
    net[0].bias.grad[0] = torch.nan
    with pytest.raises(InvalidModelError, match="NaN or infinite"):
        share.update()


def test_joules_are_tracked_step_by_step(tmp_path):
    tensorboard = pytest.importorskip("torch.utils.tensorboard", reason="needs the extra tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with gl.open_device("sim://pbit-king-64?seed=5") as chip:
        net = two_layers(chip)
        machine = gl.torch.GraphRestrictedBoltzmannMachine(chip.spec.topology, range(8), chip)
        tracker = gl.torch.EnergyTracker(net[0].bits.sampler, net[1].bits.sampler, machine.sampler, machine.sampler)
        assert len(tracker.samplers) == 3
        with tensorboard.SummaryWriter(str(tmp_path)) as writer:
            for _ in range(3):
                net(torch.randn(6, 4))
                machine.sample(8, n_samples=20, n_sweeps=2)
                used = tracker.step(writer)
        assert used.jobs == 3
        assert used.joules > 0
        assert sum(step.joules for step in tracker.steps) == pytest.approx(tracker.total().joules)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert len(events.Scalars("device/joules")) == 3
    assert events.Scalars("device/joules_total")[-1].value == pytest.approx(tracker.total().joules, rel=1e-5)
    assert events.Scalars("device/ess")[-1].value > 4


def test_books_go_on_where_a_run_was_interrupted(tmp_path):
    file = tmp_path / "run.pt"

    def part(n_steps, resume):
        with gl.open_device("sim://pbit-king-64?seed=5") as chip:
            shared = gl.torch.Sampler(chip)
            net = torch.nn.Sequential(gl.torch.BinaryLayer(shared), gl.torch.BinaryLayer(shared))
            tracker = gl.torch.EnergyTracker(shared, net[0].sampler)
            if resume:
                net(torch.zeros(5))  # not of the run
                gl.torch.load_checkpoint(file, net=net, tracker=tracker)
            for _ in range(n_steps):
                net(torch.zeros(4, 5))
                tracker.step()
            gl.torch.save_checkpoint(file, 1, net=net, tracker=tracker)
            return tracker

    first = part(3, resume=False)
    second = part(2, resume=True)
    assert (first.n_steps, second.n_steps, len(second.steps)) == (3, 5, 2)
    assert (first.total().jobs, second.total().jobs) == (6, 10)
    assert second.steps[0].jobs == 2
    assert second.total().joules == pytest.approx(first.total().joules + sum(used.joules for used in second.steps))
    assert "modelled" in str(second.total())


def test_no_effective_samples_are_stated_of_chains_with_different_laws(device):
    machine = gl.torch.BoltzmannMachine(3, 1, device)
    tracker = gl.torch.EnergyTracker(machine.sampler)
    machine.sample(2, n_samples=20)
    assert tracker._ess() > 4
    machine.sample(2, n_samples=20, clamp=torch.tensor([[1.0, 1, 1], [-1, -1, 1]]))
    assert tracker._ess() is None


def test_a_state_that_could_not_be_read_back_is_not_saved(tmp_path, device):
    file = tmp_path / "run.pt"
    layer = gl.torch.BinaryLayer(device)
    gl.torch.save_checkpoint(file, 3, layer=layer)

    class Arrays:
        def state_dict(self):
            return {"mean": np.ones(3)}

        def load_state_dict(self, state):
            pass

    with pytest.raises(InvalidModelError, match="numpy"):
        gl.torch.save_checkpoint(file, 4, layer=Arrays())
    assert gl.torch.load_checkpoint(file, layer=layer) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["run.pt"]


LOOP = textwrap.dedent(
    """
    import sys, random
    from pathlib import Path
    import numpy as np, torch, glauber as gl

    file, stop = Path(sys.argv[1]), int(sys.argv[2])
    torch.manual_seed(1); np.random.seed(1); random.seed(1)
    with gl.open_device("sim://ideal?seed=3") as device:
        net = torch.nn.Sequential(gl.torch.PbitLinear(4, 12, device), torch.nn.Linear(12, 1))
        machine = gl.torch.RestrictedBoltzmannMachine(4, 3, device)
        chains = gl.torch.PersistentChains(machine, 8)
        adam = torch.optim.Adam([*net.parameters(), *machine.parameters()], lr=0.01)
        parts = dict(net=net, machine=machine, chains=chains, adam=adam)
        begin = gl.torch.load_checkpoint(file, **parts) if file.exists() else 0
        for step in range(begin, 40):
            x = torch.sign(torch.randn(16, 4)) * float(np.sign(np.random.randn())) * random.choice([-1, 1])
            adam.zero_grad()
            ((net(x)[:, 0] - x.prod(1)) ** 2).mean().backward()
            chains.loss(x).backward()
            adam.step()
            gl.torch.save_checkpoint(file, step + 1, **parts)
            if step == stop:
                print("here", flush=True)
                import time; time.sleep(60)
        everything = [*net.parameters(), *machine.parameters()]
        print(torch.cat([p.detach().ravel() for p in everything]).numpy().tobytes().hex())
    """
)


def test_a_run_that_was_killed_goes_on_bit_for_bit(tmp_path):
    script = tmp_path / "loop.py"
    script.write_text(LOOP)

    def run(file, stop=-1):
        return [sys.executable, str(script), str(tmp_path / file), str(stop)]

    whole = subprocess.run(run("whole.pt"), capture_output=True, text=True, check=True).stdout
    with subprocess.Popen(run("cut.pt", 17), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "here\n"
        os.kill(process.pid, signal.SIGKILL)
    rest = subprocess.run(run("cut.pt"), capture_output=True, text=True, check=True).stdout
    assert len(whole) > 100
    assert rest == whole


def test_checkpoints_are_whole_or_not_there_and_bring_all_generators_back(tmp_path, device):
    file = tmp_path / "run.pt"
    layer = gl.torch.BinaryLayer(device)
    gl.torch.save_checkpoint(file, 3, layer=layer)
    expected = torch.rand(1).item(), np.random.rand(), random.random(), layer(torch.zeros(40))
    assert gl.torch.load_checkpoint(file, layer=layer) == 3
    again = torch.rand(1).item(), np.random.rand(), random.random(), layer(torch.zeros(40))
    assert again[:3] == expected[:3]
    assert torch.equal(again[3], expected[3])
    before = file.read_bytes()

    class Broken:
        def state_dict(self):
            raise MemoryError

        def load_state_dict(self, state):
            pass

    with pytest.raises(MemoryError):
        gl.torch.save_checkpoint(file, 4, layer=Broken())
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["run.pt"]


def test_what_is_no_checkpoint_is_refused(tmp_path, device):
    layer = gl.torch.PbitLinear(2, 3, device)
    good, bad = tmp_path / "good.pt", tmp_path / "bad.pt"
    gl.torch.save_checkpoint(good, 1, layer=layer)
    with pytest.raises(FileNotFoundError):
        gl.torch.load_checkpoint(tmp_path / "none.pt", layer=layer)
    bad.write_bytes(b"")
    with pytest.raises(FileFormatError, match="damaged"):
        gl.torch.load_checkpoint(bad, layer=layer)
    with pytest.raises(IsADirectoryError):
        gl.torch.load_checkpoint(tmp_path, layer=layer)
    bad.write_bytes(good.read_bytes()[:-200])
    with pytest.raises(FileFormatError, match="damaged"):
        gl.torch.load_checkpoint(bad, layer=layer)
    torch.save({"hello": 1}, bad)
    with pytest.raises(FileFormatError, match="no checkpoint"):
        gl.torch.load_checkpoint(bad, layer=layer)
    with pytest.raises(FileFormatError, match="asked for were net"):
        gl.torch.load_checkpoint(good, net=layer)
    with pytest.raises(FileFormatError, match="does not fit"):
        gl.torch.load_checkpoint(good, layer=gl.torch.PbitLinear(2, 4, device))
    with pytest.raises(InvalidModelError, match="no state_dict"):
        gl.torch.save_checkpoint(good, 1, layer=3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: gl.torch.PbitSchedule(0), "n_steps"),
        (lambda d: gl.torch.PbitSchedule(10, 0.9, 0.1), "low <= high"),
        (lambda d: gl.torch.PbitSchedule(10, shape="cubic"), "no shape"),
        (lambda d: gl.torch.PbitSchedule(10, 0.0, shape="exponential"), "cannot start at 0"),
        (lambda d: gl.torch.PbitSchedule(10, n_warmup=10), "n_warmup"),
        (lambda d: gl.torch.PbitSchedule(10).apply(torch.nn.Linear(2, 2), 0), "no BinaryLayer"),
        (lambda d: gl.torch.AdaptiveShare(gl.torch.BinaryLayer(d), target=0.0), "target"),
        (lambda d: gl.torch.AdaptiveShare(gl.torch.BinaryLayer(d)).update(), "backward"),
        (lambda d: gl.torch.EnergyTracker(), "nothing to track"),
    ],
)
def test_bad_requests_are_refused(device, make, message):
    with pytest.raises(InvalidModelError, match=message):
        make(device)
