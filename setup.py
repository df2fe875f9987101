"""Installs the packages advent, daf and ida; everything is declared in pyproject.toml.

`advent` is this project's own package. Never list the package of that name on the index as a requirement.
"""

from setuptools import setup

setup()
