"""One training script, any device: the same law within stated errors, and bit for bit after kill -9."""

import glauber.torch  # noqa: F401  where torch is missing, this says what to install
