"""Evaluation: predictions, confusion matrices, and the result files of a stage."""
