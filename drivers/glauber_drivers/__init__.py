"""Drivers for real hardware and remote devices, one file per device family, found through entry points.

No device is here yet, and one meter is, in `meters`: README says what runs today.
"""
