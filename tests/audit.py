"""Looks for known vulnerabilities in what is installed, for secrets in the project's files.

`make audit` runs it. It fails for what it finds, never for want of a network: what could not be
looked at is said.
"""

import fnmatch
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.stack import ROOT

INSTALLED = ("--local", "--skip-editable")
AUDIT_SECONDS = 300
_UNREACHABLE = re.compile(r"ConnectionError|Timeout|Could not connect|HTTPError|ServiceError")

HEX_OF_RECORDS = r"^tests/fuzz/corpus/"
"""What the fuzzer keeps is in hexadecimal: made-up bytes that look like keys."""

MADE_UP = (
    "^(secret|correct-horse|wrong-battery|ffe2b3277a8d1b00ddc6393c960dd0f8e7"
    "|apiKey|ob_live_[.]{3})$"
)
"""Passwords of tests, and a hash: they open nothing."""


def find_vulnerabilities(arguments: Sequence[str] = INSTALLED) -> bool:
    """Ask pip-audit; return whether it knows of a vulnerability.

    Raises:
        RuntimeError: pip-audit failed for another reason than that nobody answered.

    """
    command = [sys.executable, "-m", "pip_audit", "--format=json", "--progress-spinner=off"]
    try:
        done = subprocess.run(
            [*command, *arguments],
            capture_output=True,
            text=True,
            timeout=AUDIT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        _say(f"vulnerabilities: NOT LOOKED FOR, no answer within {AUDIT_SECONDS} s")
        return False
    if not done.stdout:
        if not _UNREACHABLE.search(done.stderr):
            raise RuntimeError(f"pip-audit failed:\n{done.stderr}")
        _say("vulnerabilities: NOT LOOKED FOR, nobody who knows of them can be reached")
        return False
    asked = json.loads(done.stdout)["dependencies"]
    unknown = [found["name"] for found in asked if "skip_reason" in found]
    vulnerable = [found for found in asked if found.get("vulns")]
    for found in vulnerable:
        for known in found["vulns"]:
            fixed = ", ".join(known["fix_versions"]) or "no version yet"
            _say(f"  {found['name']} {found['version']}: {known['id']}, fixed in {fixed}")
    known_of = len(asked) - len(unknown)
    if not known_of:
        _say(f"vulnerabilities: NOT LOOKED FOR, the index tells of none of {len(asked)} packages")
        return False
    _say(f"vulnerabilities: {len(vulnerable)} of {known_of} packages have known ones")
    if unknown:
        _say(f"  NOT LOOKED FOR in {len(unknown)}: {', '.join(unknown)}")
    return bool(vulnerable)


def find_secrets(directory: Path = ROOT) -> bool:
    """Scan a directory, but for what its .gitignore names; say whether it holds a secret."""
    files = list(_files(directory))
    done = subprocess.run(
        [
            *[sys.executable, "-m", "detect_secrets", "scan", "--all-files", "--no-verify"],
            f"--exclude-secrets={MADE_UP}",
            f"--exclude-files={HEX_OF_RECORDS}",
            *files,
        ],
        cwd=directory,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)["results"]
    for name, secrets in found.items():
        for secret in secrets:
            _say(f"  {name}:{secret['line_number']}: {secret['type']}")
    _say(f"secrets: {sum(map(len, found.values()))} in {len(files)} files")
    return bool(found)


def _files(directory: Path) -> Iterator[str]:
    ignored = [".git", *(directory / ".gitignore").read_text().splitlines()]
    patterns = [pattern.rstrip("/") for pattern in ignored]

    def is_kept(name: str) -> bool:
        return not any(fnmatch.fnmatch(name, pattern) for pattern in patterns)

    for root, folders, names in os.walk(directory):
        folders[:] = filter(is_kept, folders)
        for name in filter(is_kept, names):
            yield str((Path(root) / name).relative_to(directory))


def _say(line: Any) -> None:
    print(line, flush=True)  # noqa: T201 - who runs the gate reads it


if __name__ == "__main__":
    sys.exit(find_vulnerabilities() | find_secrets())
