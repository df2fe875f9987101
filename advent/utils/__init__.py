"""Losses, small functions and file formats (module names of ADVENT's public interface)."""
