"""A chain of small Boltzmann machines learns handwritten digits, beside one machine; see README.md."""
