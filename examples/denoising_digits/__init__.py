"""A chain of small Boltzmann machines learns handwritten digits, beside one machine; see README.md."""

import glauber.torch  # noqa: F401  where torch is missing, this says what to install
