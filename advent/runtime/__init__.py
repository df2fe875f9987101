"""Processes, devices, signals, locks, progress."""
