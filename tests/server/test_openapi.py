"""The description at /openapi.json: valid, complete, and true for whatever schemathesis makes of it."""

from __future__ import annotations

import hypothesis
import jsonschema
import pytest
import schemathesis
from lab_bench import CONFIG, Bench
from schemathesis import checks


def test_every_answer_is_described(bench):
    described = bench.get("/openapi.json", None).json()
    assert described["openapi"].startswith("3.1")
    schemas = described["components"]["schemas"]
    assert {"ErrorAnswer", "JobAnswer", "DeviceAnswer", "NewReservation"} <= set(schemas)
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            answers = operation["responses"]
            assert operation["summary"], path
            assert operation.get("description"), (method, path)
            if "x-scope" in operation:
                assert {"401", "403", "429", "503"} <= set(answers), path
            for status, answer in answers.items():
                if status.startswith("4"):
                    schema = answer["content"]["application/json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/ErrorAnswer"}, (method, path, status)


def attack(bench, paths=None):
    """Call what schemathesis makes of the description; (method, path, status) of the answers."""
    schema = schemathesis.openapi.from_asgi("/openapi.json", bench.app)
    names = ["status_code_conformance", "content_type_conformance", "response_schema_conformance"]
    held_to = [checks.not_a_server_error, *checks.CHECKS.get_by_names(names)]
    seen = set()
    for result in schema.get_all_operations():
        operation = result.ok()
        if paths is not None and operation.path not in paths:
            continue

        @hypothesis.settings(
            max_examples=60, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
        )
        @hypothesis.given(case=operation.as_strategy(), who=hypothesis.strategies.sampled_from(["admin", "read"]))
        def call(case, who):
            answer = case.call_and_validate(headers=bench.headers(who), checks=held_to)
            seen.add((case.method, case.path, answer.status_code))

        call()
    return seen


@pytest.fixture
def attacked(tmp_path):
    with Bench(tmp_path, 'names = ["testserver"]\n' + CONFIG) as bench:
        yield bench


# schemathesis calls the application by a client that starlette wants replaced
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_what_schemathesis_makes_of_the_description(attacked):
    attacked.wait(attacked.submit().json()["id"])
    seen = attack(attacked)
    assert len({path for _, path, _ in seen}) >= 13
    assert any(status == 200 for _, _, status in seen)
    assert attacked.wait(attacked.submit().json()["id"])["status"] == "done"


@pytest.mark.filterwarnings("ignore")
def test_schemathesis_would_see_a_broken_server(attacked, monkeypatch):
    monkeypatch.setattr(attacked.lab.store, "jobs", lambda **_: 1 / 0)
    with pytest.raises(BaseException, match="Server error"):
        attack(attacked, paths=["/jobs"])
