"""What the tests of meters share."""

from __future__ import annotations

import re

from glauber.errors import MeteringError


def assert_too_short(act, says):
    """`act` asks for a window too short to measure, which must be refused; a busy machine may make one long enough."""
    for _ in range(20):
        try:
            act()
        except MeteringError as error:
            if re.search(says, str(error)):
                return
            raise
    raise AssertionError("20 windows that should have been too short have figures")
