"""Utilities: losses, metrics, schedules, YAML/JSON files (module names as in ADVENT's public interface)."""
