"""A small language model whose attention is drawn by p-dits, beside the same model with softmax; see README.md."""

import glauber.torch  # noqa: F401  where torch is missing, this says what to install
