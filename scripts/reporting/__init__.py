"""The report: one page of what experiments left, and the same figures and table for a paper."""
