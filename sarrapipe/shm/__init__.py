"""What the processes of one flow share: the arena, its instance slots and the rate limiter.

Nothing here knows what a flow does. The parent writes who lives, each instance writes its own slot, and
anyone may read (docs/explanation/processes.md).
"""
