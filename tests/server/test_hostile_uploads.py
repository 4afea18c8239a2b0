"""Whatever is uploaded: a 4xx with a typed error, nothing unpacked beyond the limit, and a server that works after."""

from __future__ import annotations

import asyncio
import io
import json
import os
import struct
import tracemalloc
import zipfile

import glauber as gl
import numpy as np
import pytest
from lab_bench import CONFIG, MODEL, NPZ, SHORT, Bench

LIMIT, UNPACKED = 200_000, 2_000_000
SMALL = f"max_request_bytes = {LIMIT}\nmax_unpacked_bytes = {UNPACKED}\n" + CONFIG


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    with Bench(tmp_path_factory.mktemp("hostile"), SMALL) as opened:
        yield opened


def archive(changes=None, *, drop=(), compression=zipfile.ZIP_DEFLATED, **header):
    """A valid request, with members replaced, dropped or added, and parts of its header changed."""
    content = gl.JobRequest(MODEL, SHORT).to_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as valid:
        members = {name: valid.read(name) for name in valid.namelist()}
    text = json.loads(np.load(io.BytesIO(members["header.npy"])).tobytes())
    for name, value in header.items():
        if name == "__drop__":
            text.pop(value)
        else:
            text[name] = value
    members["header.npy"] = npy(np.frombuffer(json.dumps(text).encode(), dtype=np.uint8))
    members.update(changes or {})
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as made:
        for name, data in members.items():
            if name not in drop:
                made.writestr(name, data)
    return packed.getvalue()


def npy(array, *, pickled=False):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=pickled)
    return buffer.getvalue()


def lying(shape, descr="<f8"):
    """An npy header that promises more than there is."""
    text = repr({"descr": descr, "fortran_order": False, "shape": shape})
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + b"\0" * 64


class Boom:
    """Unpickled, it would make a file."""

    def __reduce__(self):
        return os.system, ("touch pwned",)


def many_members():
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as made:
        for k in range(1500):
            made.writestr(f"a{k}.npy", b"")
    return packed.getvalue()


def lying_directory():
    """The zip directory says that a bomb unpacks to ten bytes."""
    content = bytearray(archive({"fields.npy": lying((20_000_000,)) + bytes(160_000_000)}))
    at = content.rindex(b"PK\x01\x02fields.npy"[:4], 0, content.rindex(b"fields.npy"))
    content[at + 24 : at + 28] = struct.pack("<I", 10)
    return bytes(content)


def overlapping():
    """Two directory entries for one member."""
    content = archive()
    return content + content


ENCRYPTED = bytearray(archive(compression=zipfile.ZIP_STORED))
for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
    place = ENCRYPTED.find(mark)
    while place >= 0:
        ENCRYPTED[place + offset] |= 1
        place = ENCRYPTED.find(mark, place + 4)

VALID = archive()
UPLOADS = {
    "nothing": b"",
    "not a zip": b"hello" * 100,
    "json": b'{"a": 1}',
    "a pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00.",
    "half a zip": VALID[: len(VALID) // 2],
    "a zip without its end": VALID[:-30],
    "an empty zip": b"PK\x05\x06" + b"\0" * 18,
    "a flipped byte": VALID[:200] + bytes([VALID[200] ^ 255]) + VALID[201:],
    "a deflate bomb": archive({"fields.npy": npy(np.zeros(20_000_000))}),
    "a bomb in a member of no use": archive({"more.npy": npy(np.zeros(20_000_000))}),
    "a bomb that is no npy": archive({"more.bin": bytes(100_000_000)}),
    "a bomb whose directory lies": lying_directory(),
    "many members": many_members(),
    "an npy that promises petabytes": archive({"fields.npy": lying((2**50,))}),
    "an npy that promises overflow": archive({"fields.npy": lying((2**40, 2**40))}),
    "an npy with a negative shape": archive({"fields.npy": lying((-5,))}),
    "an npy with text as its shape": archive({"fields.npy": lying("__import__('os')")}),
    "an npy of version 3": archive({"fields.npy": b"\x93NUMPY\x03\x00" + b"\0" * 100}),
    "an npy of objects": archive({"fields.npy": npy(np.array([Boom(), Boom(), Boom()], dtype=object), pickled=True)}),
    "an object header": archive({"header.npy": npy(np.array([Boom()], dtype=object), pickled=True)}),
    "a structured array": archive({"fields.npy": npy(np.zeros(3, dtype=[("a", "f8"), ("b", "i4")]))}),
    "names that climb": archive({"../../../tmp/evil.npy": npy(np.zeros(3))}, drop=("fields.npy",)),
    "absolute names": archive({"/etc/evil.npy": npy(np.zeros(3))}, drop=("fields.npy",)),
    "NaN in fields": archive({"fields.npy": npy(np.array([0.0, np.nan, 0.0]))}),
    "infinite couplings": archive({"couplings.npy": npy(np.array([np.inf, 1.0]))}),
    "complex couplings": archive({"couplings.npy": npy(np.array([1j, 1.0]))}),
    "couplings of text": archive({"couplings.npy": npy(np.array(["a", "b"]))}),
    "edges out of range": archive({"edges.npy": npy(np.array([[0, 99], [1, 2]], dtype=np.int32))}),
    "edges of floats": archive({"edges.npy": npy(np.array([[0.5, 1], [1, 2]]))}),
    "edges of three": archive({"edges.npy": npy(np.zeros((2, 3), dtype=np.int32))}),
    "no fields": archive(drop=("fields.npy",)),
    "no header": archive(drop=("header.npy",)),
    "another format": archive(format="glauber.model"),
    "another version": archive(version=99),
    "a version of text": archive(version="1"),
    "a schedule that is none": archive(schedule=5),
    "a schedule of an unknown kind": archive(schedule={"kind": "os.system"}),
    "a schedule with a negative number": archive(schedule={"kind": "sampling", "n_samples": -1}),
    "a schedule with a list": archive(schedule={"kind": "sampling", "n_samples": [1]}),
    "a schedule without end": archive(schedule={"kind": "sampling", "n_samples": 10**400}),
    "a seed of text": archive(seed="7"),
    "a seed of 10^400": archive(seed=10**400),
    "a seed of NaN": archive(seed=float("nan")),
    "a priority of true": archive(priority=True),
    "an owner of a list": archive(owner=["a"]),
    "a budget of text": archive(budget="all"),
    "observe of numbers": archive(observe=[1, 2]),
    "observe of nothing": archive(observe=None),
    "labels of lists": archive(labels=[[1], [2], [3]]),
    "an offset of text": archive(offset="0"),
    "a model of no kind": archive(model="quantum"),
    "a header without a seed": archive(__drop__="seed"),
    "threads of 10^9": archive(threads=10**9),
    "an unknown instruction set": archive(isa="avx9000"),
    "a header that is a list": archive({"header.npy": npy(np.frombuffer(b"[1, 2]", dtype=np.uint8))}),
    "a header of deep nesting": archive({"header.npy": npy(np.frombuffer(b"[" * 100_000, dtype=np.uint8))}),
    "a header that is not UTF-8": archive({"header.npy": npy(np.frombuffer(b'{"\xff": 1}', dtype=np.uint8))}),
    "encrypted members": bytes(ENCRYPTED),
    "more samples than there is memory": gl.JobRequest(
        MODEL, gl.SamplingSchedule(n_samples=2**40, n_chains=2**20)
    ).to_bytes(),
}  # fmt: skip


@pytest.mark.parametrize("what", UPLOADS)
@pytest.mark.parametrize("route", ["jobs", "estimate"])
def test_a_hostile_upload_is_refused(small, what, route, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tracemalloc.start()
    answer = small.post(f"/devices/ideal/{route}", content=UPLOADS[what], headers=NPZ)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert answer.status_code in (400, 413, 422), answer.text
    told = answer.json()
    assert told["error"] in ("FileFormatError", "InvalidModelError", "ModelNotSupportedError", "RequestTooLargeError")
    assert told["message"]
    assert "Traceback" not in answer.text
    assert peak < 20_000_000, f"{peak} bytes of memory"
    assert list(tmp_path.iterdir()) == []
    assert not os.path.exists("/tmp/evil.npy")
    assert small.get("/health", None).status_code == 200


def test_the_server_works_after_all_that(small):
    job_id = small.submit().json()["id"]
    assert small.wait(job_id)["status"] == "done"


def test_too_large_as_declared_and_as_it_comes(small):
    answer = small.post("/devices/ideal/jobs", content=bytes(LIMIT + 1), headers=NPZ)
    assert (answer.status_code, answer.json()["error"]) == (413, "RequestTooLargeError")
    sent = 0

    async def endless():  # no Content-Length
        nonlocal sent
        while sent < 50 * LIMIT:
            sent += 10_000
            yield bytes(10_000)

    answer = small.post("/devices/ideal/jobs", content=endless(), headers=NPZ)
    assert answer.status_code == 413
    assert sent <= LIMIT + 20_000  # it was read no further
    lying_length = small.post("/devices/ideal/jobs", content=bytes(LIMIT * 2), headers={**NPZ, "Content-Length": "10"})
    assert lying_length.status_code in (400, 413)
    huge = small.post("/devices/ideal/jobs", content=b"", headers={**NPZ, "Content-Length": "9" * 5000})
    assert huge.status_code == 413


@pytest.mark.parametrize(
    "headers",
    [{}, {"Content-Type": "application/json"}, {"Content-Type": "multipart/form-data; boundary=x"},
     {**NPZ, "Content-Encoding": "gzip"}],
)  # fmt: skip
def test_other_types_are_refused(small, headers):
    answer = small.post("/devices/ideal/jobs", content=VALID, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (415, "UnsupportedMediaTypeError")


@pytest.mark.parametrize("key", ["", " ", "a" * 129, "\u00e4", "a b"])
def test_idempotency_keys_that_cannot_be(small, key):
    answer = small.post("/devices/ideal/jobs", content=VALID, headers={**NPZ, "Idempotency-Key": key.encode("latin-1")})
    assert answer.status_code == 422
    assert answer.json()["error"] == "InvalidModelError"


@pytest.mark.parametrize(
    "path",
    ["/jobs/..%2f..%2fetc%2fpasswd", "/jobs/%2e%2e", "/jobs/../../etc/passwd/result", "/jobs/a%00b",
     "/jobs/.hidden/result", "/jobs/" + "a" * 500, "/devices/..%2fking", "/devices/%2e%2e/jobs", "/devices/KING",
     "/devices/king%0a", "/jobs/a/../../devices/result"],
)  # fmt: skip
def test_paths_that_climb_lead_nowhere(small, path):
    answer = small.get(path)
    assert answer.status_code in (404, 405, 422)
    assert answer.json()["error"] in (
        "NotFoundError",
        "MethodNotAllowedError",
        "InvalidModelError",
        "JobNotFoundError",
        "DeviceNotFoundError",
    )


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b"null", b'{"owner": "ada"}', b'{"owner": 5, "starts": 1, "ends": 2}',
     b'{"owner": "ada", "starts": "tomorrow", "ends": "later"}', b"[" * 10_000, b"\xff\xfe", b'{"a":' * 3000,
     b'{"owner": "ada", "starts": "2099-01-01T00:00:00Z", "ends": "2099-01-01T01:00:00Z", "more": 1}',
     b'{"owner": "ada", "starts": "2099-01-01T00:00:00", "ends": "2099-01-01T01:00:00"}',
     b'{"owner": "ada", "starts": "2099-01-01T02:00:00Z", "ends": "2099-01-01T01:00:00Z"}',
     b'{"owner": "ada", "starts": "2000-01-01T00:00:00Z", "ends": "2000-01-01T01:00:00Z"}',
     b'{"owner": "../a", "starts": "2099-01-01T00:00:00Z", "ends": "2099-01-01T01:00:00Z"}', b" " * 20_000],
)  # fmt: skip
def test_reservations_that_cannot_be(small, body):
    headers = {"Content-Type": "application/json"}
    answer = small.post("/devices/king/reservations", "admin", content=body, headers=headers)
    assert answer.status_code in (413, 422), answer.text
    assert answer.json()["error"] in ("InvalidModelError", "RequestTooLargeError")


def test_the_owner_is_always_the_tokens(small):
    content = gl.JobRequest(MODEL, SHORT, owner="somebody-else", idempotency_key="mine").to_bytes()
    answer = small.post("/devices/ideal/jobs", content=content, headers=NPZ)
    job = small.get(f"/jobs/{answer.json()['id']}").json()
    assert (job["owner"], job["idempotency_key"]) == ("submiter", None)


def test_a_slow_body_holds_up_nobody_else(small, monkeypatch):
    monkeypatch.setattr("glauber.server.bodies.BODY_SECONDS", 0.3)

    async def slow():
        yield VALID[:100]
        await asyncio.sleep(3)
        yield VALID[100:]

    answer = small.post("/devices/ideal/jobs", content=slow(), headers=NPZ)
    assert (answer.status_code, answer.json()["error"]) == (408, "RequestTimeoutError")
