"""Benchmarks; each prints a table and, asked to, writes a JSON file with machine, date and command."""
