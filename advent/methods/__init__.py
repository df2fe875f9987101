"""Adaptation methods: losses, steps, and the registry of methods and networks."""
