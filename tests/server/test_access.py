"""Who gets in: every route that the description lists is held to its scope, so that a new one cannot be forgotten."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from glauber.errors import AccessError, InvalidModelError
from glauber.server import audit, labfile
from glauber.server.labfile import LabFile
from glauber.server.routes_lab import PAGE_FILES
from glauber.server.tokens import SCOPES, check_token, create_token, revoke_token
from lab_bench import CONFIG, NPZ, Bench, write_config

OPEN_TO_ALL = {("get", "/health")}
EXAMPLES = {"{name}": "ideal", "{job_id}": "some-job", "{number}": "1"}


def routes(app):
    """(method, path, scope) of everything that the OpenAPI description lists."""
    for path, methods in app.openapi()["paths"].items():
        for method, operation in methods.items():
            filled = path
            for name, value in EXAMPLES.items():
                filled = filled.replace(name, value)
            assert "{" not in filled, f"give an example for {path}"
            yield method, filled, operation.get("x-scope")


def paths(found):
    """The paths of all routes, of routers within routers too."""
    for route in found:
        if hasattr(route, "original_router"):
            yield from paths(route.original_router.routes)
        else:
            yield route.path


def test_every_route_names_its_scope(bench):
    listed = list(routes(bench.app))
    assert len(listed) >= 15
    assert {(method, path) for method, path, scope in listed if scope is None} == OPEN_TO_ALL
    undescribed = set(paths(bench.app.routes)) - set(bench.app.openapi()["paths"])
    assert undescribed == {"/openapi.json", *PAGE_FILES}


def test_no_route_answers_a_bad_token(bench):
    file = bench.lab.file
    expired = create_token(file, "eve", "admin", 1e-9)[1]
    revoked, text = create_token(file, "eve", "admin", 1)
    revoke_token(file, revoked.id)
    good = bench.tokens["admin"]
    bad = {
        "none": None,
        "wrong secret": good[:-1] + ("A" if good[-1] != "A" else "B"),
        "unknown id": "glb_00000000_" + good.split("_", 2)[2],
        "no token at all": "hello",
        "a newline behind it": good + "%0a",
        "expired": expired,
        "revoked": text,
        "very long": "glb_" + "a" * 5000,
    }
    for method, path, scope in routes(bench.app):
        if scope is None:
            continue
        for what, token in bad.items():
            answer = bench.ask(method.upper(), path, token, content=b"x", headers=NPZ)
            assert answer.status_code in (401, 429), (what, method, path, answer.text)
            told = answer.json()
            assert set(told) == {"error", "message", "request_id", "reasons"}
            assert "secret" not in told["message"]
            if answer.status_code == 401:
                assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_no_route_answers_a_lower_scope(bench):
    for method, path, scope in routes(bench.app):
        if scope in (None, "read"):
            continue
        for lower in SCOPES[: SCOPES.index(scope)]:
            answer = bench.ask(method.upper(), path, lower, content=b"x", headers=NPZ)
            assert answer.status_code == 403, (lower, method, path, answer.text)
            assert answer.json()["error"] == "AccessError"
            assert scope in answer.json()["message"]


def test_the_scope_itself_is_enough(bench):
    for method, path, scope in routes(bench.app):
        answer = bench.ask(method.upper(), path, scope, content=b"x", headers=NPZ)
        assert answer.status_code not in (401, 403), (method, path, answer.text)


def test_a_token_revoked_by_another_process_is_refused_at_once(bench, tmp_path):
    assert bench.get("/devices", "submit").status_code == 200
    number = bench.tokens["submit"].split("_")[1]
    command = [sys.executable, "-m", "glauber.cli", "token", "revoke", number]
    subprocess.run([*command, "--config", str(tmp_path / "devices.toml")], check=True, capture_output=True)
    answer = bench.get("/devices", "submit")
    assert answer.status_code == 401
    assert "revoked" in answer.json()["message"]


def test_an_expired_token_stays_expired_when_the_clock_is_set_back(tmp_path, monkeypatch):
    file = LabFile(tmp_path / "lab.sqlite")
    text = create_token(file, "ada", "read", 1)[1]
    assert check_token(file, text).owner == "ada"
    real = time.time()
    monkeypatch.setattr(labfile.time, "time", lambda: real + 90_000)
    with pytest.raises(AccessError, match="expired"):
        check_token(file, text)
    file.record_time()
    monkeypatch.setattr(labfile.time, "time", lambda: real)
    with pytest.raises(AccessError, match="expired"):
        check_token(file, text)
    file.close()
    again = LabFile(tmp_path / "lab.sqlite")
    with pytest.raises(AccessError, match="expired"):
        check_token(again, text)
    again.close()


def test_what_is_stored_is_no_secret(tmp_path):
    file = LabFile(tmp_path / "lab.sqlite")
    text = create_token(file, "ada", "read", 1)[1]
    file.close()
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert text.split("_", 2)[2].encode() not in stored
    assert os.stat(tmp_path / "lab.sqlite").st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("owner", "scope", "days"),
    [("", "read", 1), ("a\n", "read", 1), ("../a", "read", 1), ("a" * 65, "read", 1), ("a", "root", 1),
     ("a", "read", 0), ("a", "read", float("nan")), ("a", "read", 1e9)],
)  # fmt: skip
def test_tokens_that_cannot_be(tmp_path, owner, scope, days):
    file = LabFile(tmp_path / "lab.sqlite")
    with pytest.raises(InvalidModelError):
        create_token(file, owner, scope, days)
    file.close()


def test_requests_are_limited_by_token_and_failures_by_address(tmp_path):
    config = CONFIG.replace("requests_per_minute = 1000000", "requests_per_minute = 5\nfailed_logins_per_minute = 4")
    with Bench(tmp_path, config) as bench:
        answers = [bench.get("/devices", "read") for _ in range(8)]
        assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 3
        assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60
        assert answers[-1].json()["error"] == "TooManyRequestsError"
        assert bench.get("/devices", "admin").status_code == 200  # another token
        failed = [bench.get("/devices", "nonsense").status_code for _ in range(8)]
        assert failed == [401] * 4 + [429] * 4
        assert bench.get("/devices", "admin").status_code == 200  # a good one from the same address
        refused = [entry for entry in audit.entries(bench.lab.file) if entry.action == "refused"]
        assert len(refused) == 4  # a flood does not fill the log


def test_other_hosts_are_refused(bench):
    for host in ("evil.example", "127.0.0.1.evil.example", "", "evil.example:8765", "[::2]:8765", "lab"):
        answer = bench.get("/devices", "admin", headers={"Host": host})
        assert answer.status_code == 400, host
        assert answer.json()["error"] == "InvalidHostError"
    for host in ("127.0.0.1", "localhost:1", "LOCALHOST", "[::1]:8765", "[::1]"):
        assert bench.get("/devices", "admin", headers={"Host": host}).status_code == 200, host


def test_a_server_has_further_names_if_it_is_told(tmp_path):
    with Bench(tmp_path, 'names = ["lab.example"]\n' + CONFIG) as bench:
        assert bench.get("/devices", "read", headers={"Host": "lab.example:8765"}).status_code == 200


def test_nothing_can_be_used_from_another_site(bench):
    for path in ("/", "/health", "/devices", "/nothing", "/openapi.json"):
        answer = bench.get(path, "read", headers={"Origin": "https://evil.example"})
        headers = {name.lower() for name in answer.headers}
        assert not any(name.startswith("access-control") for name in headers), path
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert len(answer.headers["X-Request-ID"]) == 16
    assert bench.ask("OPTIONS", "/devices", "read").status_code == 405


def test_the_page_is_served_and_loads_nothing_from_elsewhere(bench):
    answer = bench.get("/", None)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "glauber" in answer.text
    assert "//" not in answer.text.replace('"http://.../devices/NAME"', "")


def test_unknown_paths_and_methods_are_typed(bench):
    assert bench.get("/nothing").json()["error"] == "NotFoundError"
    wrong = bench.ask("PUT", "/devices")
    assert (wrong.status_code, wrong.json()["error"]) == (405, "MethodNotAllowedError")


def test_a_mistake_of_the_server_is_typed_and_tells_nothing(bench, monkeypatch):
    monkeypatch.setattr(bench.lab.store, "jobs", lambda **_: 1 / 0)
    answer = bench.get("/jobs")
    assert answer.status_code == 500
    assert answer.json()["error"] == "InternalError"
    assert "division" not in answer.text


def test_the_commands(tmp_path):
    path = write_config(tmp_path)

    def command(*arguments, code=0):
        start = [sys.executable, "-m", "glauber.cli", *arguments, "--config", str(path)]
        done = subprocess.run(start, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        return done

    made = command("token", "create", "--owner", "ada", "--scope", "submit", "--days", "30")
    text = made.stdout.strip()
    assert text.startswith("glb_")
    assert text not in made.stderr
    listed = command("token", "list").stdout
    assert "ada" in listed
    assert "valid" in listed
    assert text.split("_", 2)[2] not in listed  # the secret may hold a _ itself
    number = text.split("_")[1]
    command("token", "revoke", number)
    assert "revoked" in command("token", "list").stdout
    assert "there is no token" in command("token", "revoke", "12345678", code=2).stderr
    verified = command("audit", "verify").stdout
    assert verified.startswith("2 entries")
    assert '"token-revoke"' in command("audit", "list", "--json").stdout
    assert "no lab configuration" in subprocess.run(
        [sys.executable, "-m", "glauber.cli", "token", "list"], cwd=tmp_path.parent, capture_output=True, text=True,
        check=False,
    ).stderr  # fmt: skip
