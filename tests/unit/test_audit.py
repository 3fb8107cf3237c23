"""The gate fails for a known vulnerability and for a secret; it says what it could not look at."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.audit import find_secrets, find_vulnerabilities
from tests.stack import free_port

KNOWN = {
    "id": "PYSEC-0000-1",
    "summary": "leaks",
    "affected": [
        {
            "package": {"name": "leaky", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.0"}]}],
        }
    ],
}


class _Database(http.server.BaseHTTPRequestHandler):
    """Answers as a database of vulnerabilities does: of leaky it knows one, of others none."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        known = {"vulns": [KNOWN]} if asked["package"]["name"] == "leaky" else {}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(known).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def database() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Database) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
        server.shutdown()
        thread.join()


def asking(url: str, tmp_path: Path, *packages: str) -> list[str]:
    wanted = tmp_path / "requirements.txt"
    wanted.write_text("".join(f"{package}\n" for package in packages))
    service = ["--vulnerability-service=osv", f"--osv-url={url}", f"--cache-dir={tmp_path}"]
    return [*service, "--disable-pip", "--no-deps", f"--requirement={wanted}"]


def test_a_known_vulnerability_is_found_and_named(
    database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert find_vulnerabilities(asking(database, tmp_path, "tight==1.0", "leaky==1.0"))
    said = capsys.readouterr().out
    assert "leaky 1.0: PYSEC-0000-1, fixed in 2.0" in said
    assert "vulnerabilities: 1 of 2 packages have known ones" in said


def test_none_known_is_no_fault(
    database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not find_vulnerabilities(asking(database, tmp_path, "tight==1.0"))
    assert "vulnerabilities: 0 of 1 packages have known ones" in capsys.readouterr().out


def test_nobody_to_ask_is_no_fault_and_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nobody = f"http://127.0.0.1:{free_port()}/v1/query"
    assert not find_vulnerabilities(asking(nobody, tmp_path, "tight==1.0"))
    assert "NOT LOOKED FOR" in capsys.readouterr().out


def test_another_failure_is_not_taken_for_no_answer() -> None:
    with pytest.raises(RuntimeError, match="pip-audit failed"):
        find_vulnerabilities(["--no-such-option"])


def test_a_secret_is_found_where_it_could_be_committed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # In two parts, or it would be found here.
    secret = "token = '" + "ghp_" + "a1B2" * 9 + "'\n"
    (tmp_path / ".gitignore").write_text("ignored/\n*.log\n")
    for name in ("settings.py", "ignored/deploy.py", "deploy.log"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("limit = 3\n" if name == "settings.py" else secret)
    assert not find_secrets(tmp_path)
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy" / "deploy.py").write_text(secret)
    assert find_secrets(tmp_path)
    assert "deploy/deploy.py:1:" in capsys.readouterr().out
