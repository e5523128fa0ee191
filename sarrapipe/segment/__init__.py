"""Ranges of a file and the file under assembly; pure planning, and the few places that write."""
