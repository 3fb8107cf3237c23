"""Python imports this by itself in every process whose PYTHONPATH holds this folder."""

from tests.crash.failpoints import install

install()
