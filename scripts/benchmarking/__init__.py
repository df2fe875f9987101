"""The benchmark: methods x seeds."""
