"""Predictions, confusion matrices, and the results of a stage."""
