"""Pipeline: runs all stages of a protocol in order."""
