"""The C core as a device, and the slow reference that defines what it must return."""
