"""The typed config: its keys (schema), its files (loading), and the class set that a config names (class_set)."""
