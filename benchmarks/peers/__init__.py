"""What a user would pick instead, a file each. Every file gives `contenders(workload)` for the harness.

A file whose package is missing fails to import; the harness then reports the peer as missing.
"""

PEERS = ("numpy_peer", "numba_peer", "dwave_peer", "openjij_peer", "thrml_peer", "ferrotherm_peer", "torch_peer")
