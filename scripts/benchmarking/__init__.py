"""Ablation benchmark: methods x seeds."""
