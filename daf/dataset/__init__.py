"""Depth formats and units, and SYNTHIA with depth."""
