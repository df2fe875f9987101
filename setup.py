"""Installs the packages advent, daf and ida; everything but the configs is declared in pyproject.toml.

`advent` is this project's own package. Never list the package of that name on the index as a requirement.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["advent*", "daf*", "ida*"]), "advent.configs"],
    # configs/ is in the top level of the repository; in a wheel it is advent/configs (advent/utils/paths.py).
    package_dir={"advent.configs": "configs"},
    package_data={"advent.configs": ["**/*.yml", "**/*.csv", "**/*.txt"]},
)
