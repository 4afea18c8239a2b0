"""Drivers for real hardware and remote devices, one file per device family, found through entry points.

None is here yet: README says what runs today.
"""
