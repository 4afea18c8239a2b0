"""One training script, any device: the same law within stated errors, and bit for bit after kill -9."""
