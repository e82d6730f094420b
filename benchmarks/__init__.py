"""Gristmill side by side with peers: one script a question, each run as `python -m benchmarks.NAME`."""
