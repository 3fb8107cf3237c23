"""The command line, settings and processes: what puts the other rooms together."""

from importlib.metadata import version

__version__ = version("openbat-capture")
