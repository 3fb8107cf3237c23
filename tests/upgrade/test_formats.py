"""What this release writes is read by the code of the release before it."""

import os
import subprocess

import pytest

from tests.unit.test_golden import NEWEST, RECORDS, kind_of, path_of
from tests.upgrade.formats import FORMATS
from tests.upgrade.releases import CURRENT, PACKAGES, PREVIOUS, PYTHON, Release

WHERE = f"import {', '.join(PACKAGES)}; print(*(m.__file__ for m in ({', '.join(PACKAGES)})))"


def known_to(release: str) -> dict[str, str]:
    """Return the name of each kind's newest record that a release wrote, or one before it."""
    return {
        kind_of(name): name for name in RECORDS if number(name.partition("/")[0]) <= number(release)
    }


def number(release: str) -> list[int]:
    return [int(part) for part in release.split(".")]


def test_each_release_runs_its_own_code(previous: Release) -> None:
    assert previous.name != CURRENT.name
    for release in (previous, CURRENT):
        found = subprocess.run(
            [*PYTHON, "-c", WHERE],
            env=release.environment(os.environ),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert found.split() == [str(release.root / name / "__init__.py") for name in PACKAGES]


@pytest.mark.parametrize("kind", FORMATS)
def test_the_previous_release_reads_what_this_one_writes(previous: Release, kind: str) -> None:
    """It passes over what it does not know: what it writes again is a record of its own."""
    (again,) = previous.rewritten([(kind, path_of(NEWEST[kind]).read_bytes())])
    assert again == path_of(known_to(PREVIOUS)[kind]).read_bytes()
