"""Jobs that survive their process: `JobStore`, one SQLite file.

    with gl.open_device("sim://ideal", store=True) as device:      # or the path of a store
        job = device.submit(model, schedule)                        # on the disk before it returns
    gl.get_job(job.id)                                              # later, in any process

A job that was queued when its process died runs when the device is opened again with the same store; one that was
running goes on from the last part of its result that was stored, and its samples are what they would have been.
"""

from __future__ import annotations

from glauber.store.jobs import JobStore, default_path, open_store
from glauber.store.records import JobRecord, Usage

__all__ = ["JobRecord", "JobStore", "Usage", "default_path", "open_store"]
