"""Instruments that measure joules, one file per kind, found through the entry points `glauber.meters`."""
