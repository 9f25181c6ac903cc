"""Schemathesis over the whole API: what is sent is generated from the description, what comes back is held against it."""
