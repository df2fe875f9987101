"""Data set reader: one dataset class, driven by YAML specs (configs/datasets/)."""
