"""No test writes into the user's own store of jobs, nor does a process that it starts."""

import os
import tempfile
from pathlib import Path

import hypothesis
import pytest

# No deadline: a busy machine is slow, and nothing is wrong. The same cases in every run, so that a change that has
# nothing to do with them is not blamed; for new ones, now and then: pytest --hypothesis-profile=random
hypothesis.settings.register_profile("glauber", deadline=None, derandomize=True)
hypothesis.settings.register_profile("random", deadline=None, derandomize=False)
hypothesis.settings.load_profile("glauber")


@pytest.fixture(autouse=True, scope="session")
def _store_of_the_tests():
    with tempfile.TemporaryDirectory(prefix="glauber-tests-") as folder:
        before = os.environ.get("GLAUBER_STORE")
        os.environ["GLAUBER_STORE"] = str(Path(folder) / "jobs.sqlite")
        yield
        os.environ.pop("GLAUBER_STORE")
        if before is not None:
            os.environ["GLAUBER_STORE"] = before
