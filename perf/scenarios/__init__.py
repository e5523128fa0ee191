"""The benchmarks, one a module; each exports `SCENARIO`."""
