"""Benchmarks beside the peers, and the demonstration of the main job. See perf/README.md."""
