"""A store of jobs under kill -9: `python -m benchmarks.kills [--kills 500] [--faults 100] [--seed 1]`.

Rounds of: a process opens a device with the store, takes over what is there, and submits jobs from two threads, some
small, some of seconds; at a random instant it is killed. After the last round the rest is run. Then, for every job
whose submit had returned: is it there, has it one final state, is its result that of an undisturbed run, bit for bit?
The same with disks that fill up (max_page_count, RLIMIT_FSIZE), a file that cannot be written, pages that are damaged,
and a clock that is set back. Anything lost, twice or wrong fails the run. Writes kills.json.
"""

from __future__ import annotations

import argparse
import collections
import functools
import itertools
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import glauber as gl
import numpy as np
from glauber import keeping
from glauber.errors import GlauberError, StoreError
from glauber.store import JobStore
from glauber.store.compare import compare_results
from glauber.store.upkeep import check_store
from rich.progress import track

from benchmarks.machine import provenance, write

DEVICE = "sim://ideal"
N_KINDS = 14
PART_SECONDS = 0.03
"""Of these jobs: a kill shall often fall between two parts, or into one."""


WAITING = 5
"""So many jobs wait at most: a queue that only grows would leave all of the work to the end."""


@functools.cache
def kind(k: int) -> tuple[gl.IsingModel, Any, dict[str, Any]]:
    """What job k mod N_KINDS is: model, schedule and the other arguments of submit."""
    k %= N_KINDS
    rng = np.random.default_rng(k)
    n = 64 if k < 10 else 400
    pairs = [(i, (i + d) % n) for i in range(n) for d in (1, 7)]
    model = gl.IsingModel(np.zeros(n), np.array(pairs), rng.choice([-1.0, 1.0], len(pairs)))
    arguments: dict[str, Any] = {"seed": 1000 + k, "observe": {"samples"}}
    if k < 6:  # small
        return model, gl.SamplingSchedule(n_samples=20, n_chains=1 + 9 * (k % 2), beta=0.5), arguments
    if k == 6:
        return model, gl.TemperingSchedule(n_samples=2000, betas=(0.2, 0.5, 1.0), n_ladders=4), arguments
    if k == 7:
        population = gl.PopulationSchedule(betas=tuple(np.linspace(0, 1, 20)), sweeps_per_step=40, n_chains=256)
        return model, population, {**arguments, "observe": {"last"}}
    if k == 8:
        return model, gl.AnnealingSchedule(n_sweeps=60_000, n_chains=32), {**arguments, "observe": {"last"}}
    if k == 9:
        return model, gl.AsynchronousSchedule(n_samples=500, n_chains=4, delay=0.1), arguments
    thin = 120 * (k - 9)  # large: parts of samples and of moments
    return (
        model,
        gl.SamplingSchedule(n_samples=100, n_chains=64, n_warmup=500, sweeps_per_sample=thin, beta=0.4),
        {**arguments, "observe": {"samples", "moments"} if k % 2 else {"moments", "energies"}},
    )


@functools.cache
def undisturbed(k: int) -> gl.SampleSet:
    """The result of a kind without a store and without a kill."""
    model, schedule, arguments = kind(k)
    with gl.open_device(DEVICE) as device:
        return device.submit(model, schedule, **arguments).result()


def submit(device: gl.Device, number: int) -> gl.Job:
    """Job number `number`, as a client would that tries again after a crash."""
    model, schedule, arguments = kind(number)
    return device.submit_request(
        gl.JobRequest(model, schedule, **arguments, owner=f"owner {number % 3}", idempotency_key=f"key {number}")
    )


def in_child(act: Callable[[], None]) -> int:
    """Run something in a forked process; its id. A crash of its own shows in its exit status."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        act()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def load(path: Path, first: int, told: int, clock_offset: float = 0.0) -> None:
    """Submit jobs from number `first` on until killed; tell of each that was accepted."""
    keeping.PART_SECONDS = PART_SECONDS
    store = JobStore(path, clock=lambda: time.time() + clock_offset)
    device = gl.open_device(DEVICE, store=store)
    lock, count = threading.Lock(), iter(range(first, first + 10_000))

    def one() -> None:
        while True:
            while len(device.queued) >= WAITING:
                time.sleep(0.005)
            with lock:
                number = next(count)
            job = submit(device, number)
            os.write(told, f"{number} {job.id}\n".encode())

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def drain(path: Path, timeout: float = 600.0) -> None:
    """Open the device, take over what is left, and run it."""
    with JobStore(path) as store, gl.open_device(DEVICE, store=store) as device:
        device.close(drain=True, timeout=timeout)


class Ledger:
    """What was accepted, by number of the job."""

    def __init__(self) -> None:
        self.accepted: dict[int, str] = {}
        self.found: collections.Counter[str] = collections.Counter()

    def hear(self, text: str) -> None:
        """Lines of a child."""
        for line in text.splitlines():
            number, _, job_id = line.partition(" ")
            before = self.accepted.setdefault(int(number), job_id)
            if before != job_id:
                self.found["jobs with two ids"] += 1

    def judge(self, path: Path) -> None:
        """Count what is lost, double or wrong."""
        with JobStore(path) as store:
            damage = check_store(store).damage
            self.found["damaged"] += len(damage)
            for line in damage[:3]:
                print("damaged:", line)
            for number, job_id in self.accepted.items():
                self.found["accepted"] += 1
                try:
                    record = store.get(job_id)
                except GlauberError as error:
                    print(f"job {number} {job_id}: {error}")
                    self.found["lost"] += 1
                    continue
                ends = sum(event.status in ("done", "failed", "cancelled") for event in store.events(job_id))
                again = [event for event in store.events(job_id) if "goes on" in event.message]
                self.found["taken over while running"] += len(again)
                self.found["of these in the middle"] += sum(event.sweeps_done > 0 for event in again)
                if record.status is not gl.JobStatus.DONE:
                    print(f"job {number} {job_id} is {record.status.value}: {record.message}")
                    self.found["not done"] += 1
                    continue
                if ends != 1:
                    self.found["two results"] += 1
                verdict = compare_results(undisturbed(number % N_KINDS), store.result(job_id))
                if verdict != "identical":
                    print(f"job {number} {job_id} (kind {number % N_KINDS}): {verdict}")
                    self.found["different"] += 1


def killed_rounds(folder: Path, kills: int, seed: int, *, clocks: bool = False) -> collections.Counter[str]:
    """Kill -9 at random instants under load."""
    rng = np.random.default_rng(seed)
    path, ledger, first = folder / "jobs.sqlite", Ledger(), 0
    for _ in track(range(kills), description="clock set back" if clocks else "kill -9"):
        reader, writer = os.pipe()
        offset = -float(rng.uniform(0, 1e6)) if clocks else 0.0
        child = in_child(functools.partial(load, path, first, writer, offset))
        os.close(writer)
        time.sleep(float(rng.uniform(0.0, 0.9) if rng.random() < 0.8 else rng.uniform(0.9, 2.5)))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            ledger.found["ended by itself"] += 1
        with os.fdopen(reader) as heard:
            ledger.hear(heard.read())
        # a client goes on with the jobs of which it heard nothing
        first = max(ledger.accepted, default=-1) + 1 - int(rng.integers(0, 3))
        first = max(0, first)
    drain(path)
    ledger.found["kills"] = kills
    ledger.judge(path)
    if clocks:
        with JobStore(path) as store:
            rows = store.database.read("SELECT at FROM event ORDER BY rowid")
            times = [at for (at,) in rows]
            ledger.found["times that went back"] = sum(b < a for a, b in itertools.pairwise(times))
    return ledger.found


def full_disk(folder: Path, rounds: int, seed: int, how: str) -> collections.Counter[str]:
    """Disks that are full at a random size: a typed error, and nothing lost of what was accepted."""
    rng = np.random.default_rng(seed)
    path, ledger, first = folder / "jobs.sqlite", Ledger(), 0
    JobStore(path).close()

    def act(told: int, room: int) -> None:
        keeping.PART_SECONDS = PART_SECONDS
        store = JobStore(path)
        size = path.stat().st_size
        if how == "max_page_count":
            store.database.limit_pages((size + room) // 4096 + 1)
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, size + room))
        refused = None
        try:
            device = gl.open_device(DEVICE, store=store)
            for number in range(first, first + 200):
                job = submit(device, number)
                os.write(told, f"{number} {job.id}\n".encode())
                job.wait()
                if job.exception() is not None and not isinstance(job.exception(), StoreError):
                    raise RuntimeError(f"job {number} failed by {job.exception()!r}")
        except StoreError as error:
            refused = error
        if refused is None:
            raise RuntimeError(f"200 jobs found room in {room} bytes")
        os.write(told, b"-1 refused\n")

    for _ in track(range(rounds), description=how):
        reader, writer = os.pipe()
        child = in_child(functools.partial(act, writer, int(rng.integers(0, 8_000_000))))
        os.close(writer)
        _, status = os.waitpid(child, 0)
        with os.fdopen(reader) as heard:
            text = heard.read()
        refused = text.endswith("-1 refused\n")
        ledger.found["typed errors" if refused and status == 0 else "other ends"] += 1
        ledger.hear(text.removesuffix("-1 refused\n"))
        first = max(ledger.accepted, default=-1) + 1
    drain(path)
    ledger.judge(path)
    return ledger.found


def read_only(folder: Path) -> collections.Counter[str]:
    """A file that this user may read and not write: reading works, writing is refused, nothing changes."""
    path, found = folder / "jobs.sqlite", collections.Counter[str]()
    with gl.open_device(DEVICE, store=path) as device:
        job_id = submit(device, 0).id
        device.close(drain=True)
    before = path.read_bytes()
    os.chmod(folder, 0o755)
    os.chmod(path, 0o444)

    def act() -> None:
        if os.getuid() == 0:
            os.chmod(folder.parent, 0o755)
            os.setgid(65534)
            os.setuid(65534)
        else:
            os.chmod(folder, 0o555)
        with JobStore(path) as store:
            if compare_results(undisturbed(0), store.result(job_id)) != "identical":
                raise RuntimeError("the result cannot be read")
        try:
            gl.open_device(DEVICE, store=path)
        except StoreError:
            return
        raise RuntimeError("a device was opened on a store that cannot be written")

    undisturbed(0)
    _, status = os.waitpid(in_child(act), 0)
    os.chmod(folder, 0o755)
    found["typed errors" if status == 0 else "other ends"] += 1
    found["changed"] += path.read_bytes() != before
    return found


def damaged_pages(folder: Path, rounds: int, seed: int) -> collections.Counter[str]:
    """Bytes of random pages overwritten: every answer is right or a typed error, and the check finds what is wrong."""
    rng = np.random.default_rng(seed)
    path, found = folder / "jobs.sqlite", collections.Counter[str]()
    with gl.open_device(DEVICE, store=path) as device:
        ids = [submit(device, number).id for number in range(60)]
        device.close(drain=True)
    with JobStore(path) as store:
        store.database.compact()
        want = {
            job_id: (store.get(job_id).as_dict(), store.request(job_id).key, store.result_bytes(job_id))
            for job_id in ids
        }
    whole = path.read_bytes()
    for _ in track(range(rounds), description="damaged pages"):
        copy = folder / "damaged.sqlite"
        content = bytearray(whole)
        page = int(rng.integers(0, len(whole) // 4096)) * 4096
        for _ in range(int(rng.choice([1, 16, 4096]))):
            content[page + int(rng.integers(0, 4096))] ^= int(rng.integers(1, 256))
        copy.write_bytes(content)
        wrong = unreadable = 0
        checked = False
        try:
            with JobStore(copy) as store:
                for job_id, (record, key, result) in want.items():
                    try:
                        got = store.get(job_id).as_dict(), store.request(job_id).key, store.result_bytes(job_id)
                        wrong += got[1:] != (key, result) or got[0]["seed"] != record["seed"]
                        wrong += {n: v for n, v in got[0].items() if n not in MUTABLE} != {
                            n: v for n, v in record.items() if n not in MUTABLE
                        }
                    except GlauberError:
                        unreadable += 1
                checked = bool(check_store(store).damage)
        except StoreError:
            unreadable, checked = len(want), True
        found["rounds"] += 1
        found["wrong answers"] += wrong
        found["rounds with a typed error"] += unreadable > 0
        found["jobs that stayed readable"] += len(want) - unreadable
        found["damage that the check did not see"] += unreadable > 0 and not checked
        for leftover in folder.glob("damaged.sqlite*"):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    return found


MUTABLE = ("seconds", "joules", "joules_uncertainty", "basis", "stopped_by", "sweeps_done", "samples_done", "started",
           "ended", "started_at", "ended_at", "status", "message", "error", "number")  # fmt: skip
"""Figures without a checksum of their own, which tell of a job and decide nothing."""

BAD = ("lost", "not done", "two results", "different", "damaged", "ended by itself", "jobs with two ids", "other ends",
       "changed", "wrong answers", "damage that the check did not see", "times that went back")  # fmt: skip


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--faults", type=int, default=100, help="rounds of each other fault")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, help="folder for kills.json; nothing is written without")
    given = parser.parse_args()
    for k in range(N_KINDS):
        undisturbed(k)
    results: dict[str, dict[str, int]] = {}
    parts: dict[str, Callable[[Path], collections.Counter[str]]] = {
        "kill -9": lambda folder: killed_rounds(folder, given.kills, given.seed),
        "clock set back": lambda folder: killed_rounds(folder, max(1, given.faults // 4), given.seed + 1, clocks=True),
        "disk full (max_page_count)": lambda folder: full_disk(folder, given.faults, given.seed + 2, "max_page_count"),
        "disk full (RLIMIT_FSIZE)": lambda folder: full_disk(folder, given.faults, given.seed + 3, "RLIMIT_FSIZE"),
        "read-only file": read_only,
        "damaged pages": lambda folder: damaged_pages(folder, 4 * given.faults, given.seed + 4),
    }
    bad = 0
    for name, act in parts.items():
        with tempfile.TemporaryDirectory() as folder:
            store_folder = Path(folder) / "store"
            store_folder.mkdir()
            began = time.monotonic()
            found = act(store_folder)
            results[name] = {**dict(found), "seconds": round(time.monotonic() - began)}
            bad += sum(found[what] for what in BAD)
            print(name, json.dumps(results[name]))
    if given.output is not None:
        write(given.output / "kills.json", {**provenance(("glauber", "numpy")), "device": DEVICE, "results": results})
    if bad:
        raise SystemExit(f"{bad} things are lost, double or wrong")
    print("nothing is lost, double or wrong")


if __name__ == "__main__":
    main()
