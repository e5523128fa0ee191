"""sarrapipe: a data pump that announces, fetches, verifies and announces again."""

__version__ = "0.1.0.dev0"
