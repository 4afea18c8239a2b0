"""The order of a device's queue: priority, then fairness, then arrival."""

from __future__ import annotations

import collections
import itertools

import glauber as gl
import pytest
from glauber.queueing import FairQueue
from hypothesis import given
from hypothesis import strategies as st

MODEL = gl.IsingModel.from_edges([(0, 1, 1.0)])
NUMBERS = itertools.count()


def entry(owner="ann", priority=0, number=None):
    request = gl.JobRequest(MODEL, owner=owner, priority=priority)
    return next(NUMBERS) if number is None else number, gl.Job(f"{owner}", request, 0, lambda job: None), None


def served(queue, seconds=1.0, n=10**6):
    """Owners in the order in which they are served, each job taking so long."""
    order = []
    while len(order) < n and (taken := queue.pop()) is not None:
        order.append(taken[1].owner)
        queue.charge(taken[1].owner, seconds(taken[1].owner) if callable(seconds) else seconds)
    return order


def test_one_owner_is_served_by_priority_and_then_in_order():
    queue = FairQueue()
    entries = [entry(priority=p) for p in (0, 1, 0, -1, 1)]
    for each in entries:
        queue.push(each)
    assert [queue.pop() for _ in range(5)] == [entries[k] for k in (1, 4, 0, 2, 3)]
    assert queue.pop() is None


def test_a_flood_does_not_starve_who_comes_later():
    queue = FairQueue()
    for _ in range(1000):
        queue.push(entry("flood"))
    assert served(queue, n=100) == ["flood"] * 100
    for _ in range(3):
        queue.push(entry("light"))
    order = served(queue, n=6)
    assert order.count("light") == 3
    assert order[:2] in (["light", "flood"], ["flood", "light"])


def test_time_is_shared_and_not_the_number_of_jobs():
    queue = FairQueue()
    for owner in ("long", "short"):
        for _ in range(300):
            queue.push(entry(owner))
    order = served(queue, lambda owner: 10.0 if owner == "long" else 1.0, n=220)
    counts = collections.Counter(order)
    assert counts["short"] / counts["long"] == pytest.approx(10, rel=0.1)


def test_being_away_saves_up_nothing():
    queue = FairQueue()
    for _ in range(50):
        queue.push(entry("busy"))
    served(queue, n=40)
    for _ in range(30):
        queue.push(entry("back"))
    assert served(queue, n=20).count("busy") == 10


def test_who_had_it_for_himself_is_not_made_to_pay():
    queue = FairQueue()
    queue.push(entry("alone"))
    served(queue, 100.0)
    for _ in range(10):
        queue.push(entry("alone"))
        queue.push(entry("new"))
    assert served(queue, n=10).count("alone") == 5


def test_who_runs_a_long_job_waits_for_those_who_came_meanwhile():
    queue = FairQueue()
    queue.push(entry("long"))
    assert queue.pop()[1].owner == "long"
    for owner in ("long", "new", "long", "new"):
        queue.push(entry(owner))
    queue.charge("long", 100.0)
    assert served(queue, n=4) == ["new", "new", "long", "long"]


def test_only_one_owner():
    queue = FairQueue()
    for owner in ("ann", "bob", "ann"):
        queue.push(entry(owner))
    assert queue.pop("cid") is None
    assert queue.pop("bob")[1].owner == "bob"
    queue.charge("bob", 1.0)
    assert queue.pop("bob") is None
    assert len(queue) == 2


def test_a_job_that_made_way_goes_before_its_owners_later_ones():
    queue = FairQueue()
    first, second = entry(number=1), entry(number=2)
    queue.push(second)
    queue.push(first)
    assert queue.pop() is first


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(-1, 1), st.sampled_from(["push", "pop", "remove"])), max_size=60
    )
)
def test_nothing_is_lost_or_served_twice(steps):
    queue, inside = FairQueue(), []
    for owner, priority, what in steps:
        if what == "push":
            each = entry(owner, priority)
            queue.push(each)
            inside.append(each)
        elif what == "pop":
            taken = queue.pop()
            assert (taken is None) == (not inside)
            if taken is not None:
                assert taken[1].request.priority == max(e[1].request.priority for e in inside)
                inside.remove(taken)
                queue.charge(taken[1].owner, 1.0)
        elif inside:
            assert queue.remove(inside[0][1])
            assert not queue.remove(inside[0][1])
            inside.pop(0)
        assert len(queue) == len(inside)
        assert {id(job) for job in queue} == {id(e[1]) for e in inside}
    assert {id(job) for job in queue.clear()} == {id(e[1]) for e in inside}
    assert len(queue) == 0
