"""Experiment reports: one HTML page, and the same figures and table for a paper."""
