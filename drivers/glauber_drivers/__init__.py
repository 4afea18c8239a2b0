"""Drivers for real hardware and remote devices, one file per device family, found through entry points.

GPUs are here, and one meter, in `meters`: README says what runs today, and what has met its hardware.
"""
