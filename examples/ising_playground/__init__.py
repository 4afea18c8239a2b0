"""A page to play with an Ising model on any device; see README.md."""
