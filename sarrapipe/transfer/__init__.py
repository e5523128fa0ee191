"""Fetching: backends that move ranges of bytes, and the engine that runs many of them at a time."""
