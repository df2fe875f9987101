"""Installs the packages advent, daf and ida; everything but its data files is declared in pyproject.toml.

`advent` is this project's own package. Never list the package of that name on the index as a requirement.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["advent*", "daf*", "ida*"]), "advent.configs", "advent.pretrained"],
    # Folders in the top level of the repository; in a wheel they are in advent (advent/utils/paths.py).
    package_dir={"advent.configs": "configs", "advent.pretrained": "pretrained"},
    package_data={
        "advent.configs": ["**/*.yml", "**/*.csv", "**/*.txt"],
        "advent.pretrained": ["streets.*"],  # the shipped checkpoint, never those that a user put beside it
    },
)
