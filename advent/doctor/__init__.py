"""Data checks: report the problems of a data set before training (scripts/doctor.py, and DATA_CHECK before a stage)."""
