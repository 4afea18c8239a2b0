"""A small language model whose attention is drawn by p-dits, beside the same model with softmax; see README.md."""
