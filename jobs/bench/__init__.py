"""Benchmarks, soak and the stand-ins they run on; nothing here is needed to train."""
