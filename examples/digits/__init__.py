"""A Boltzmann machine learns handwritten digits on a p-bit chip; see README.md."""
