"""All stages of a protocol in order."""
