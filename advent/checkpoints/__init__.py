"""Checkpoint files, run directories, provenance."""
