"""Build of the package; the native op's extension is declared here, everything else in pyproject.toml."""

from setuptools import setup

setup()
