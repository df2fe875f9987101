"""Measurements of scripts/bench.py."""
