"""``make audit`` and ``make sbom``: what they say of the pins."""

import json
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.servers import free_port

ROOT = Path(__file__).parents[2]
VULNERABILITY = {
    "id": "OSV-2026-1",
    "summary": "A hole in flask",
    "affected": [
        {
            "package": {"name": "flask", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.0"}]}],
        }
    ],
}


def pins():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


@pytest.fixture
def advisories():
    """OSV, as far as it is asked: ``vulnerable`` names the packages with a hole, ``status`` what it answers."""

    class Advisories(BaseHTTPRequestHandler):
        vulnerable: set[str] = set()  # noqa: RUF012
        status = 200
        asked: list[str] = []  # noqa: RUF012

        def do_POST(self):
            name = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["package"]["name"]
            self.asked.append(name)
            body = json.dumps({"vulns": [VULNERABILITY]} if name in self.vulnerable else {}).encode()
            self.send_response(self.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Advisories) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        Advisories.url = f"http://127.0.0.1:{server.server_port}/v1/query"
        yield Advisories
        server.shutdown()
        thread.join()


def audit(url):
    command = [sys.executable, "tools/audit.py", "--osv-url", url]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_every_pin_is_asked_for(advisories):
    done = audit(advisories.url)
    assert (done.returncode, done.stdout) == (0, f"make audit: {len(pins())} packages, 0 known vulnerabilities\n")
    assert sorted(advisories.asked) == sorted(pins())


def test_a_known_vulnerability_fails(advisories):
    advisories.vulnerable = {"flask"}
    done = audit(advisories.url)
    assert done.returncode == 1
    assert f"flask {pins()['flask']}: OSV-2026-1 (mended in 99.0): A hole in flask" in done.stdout


def test_out_of_reach_is_said_and_is_no_failure(advisories):
    advisories.status = 503
    for url in (f"http://127.0.0.1:{free_port()}/v1/query", advisories.url):
        done = audit(url)
        assert done.returncode == 0, done.stderr
        assert "NOT audited, the advisories cannot be reached" in done.stdout


def test_what_is_no_option_is_a_failure():
    command = [sys.executable, "tools/audit.py", "--no-such-option"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1


def test_the_list_of_components_has_every_pin(tmp_path):
    """As ``make sbom`` makes it, which has it checked as well, in half a minute."""
    recipe = re.search(r"cyclonedx-py (environment .*) -o build/sbom\.json", (ROOT / "Makefile").read_text())
    target = tmp_path / "sbom.json"
    words = [sys.executable, "-m", "cyclonedx_py", *recipe[1].split(), "--no-validate", "-o", str(target)]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
    listed = json.loads(target.read_text())
    assert (listed["bomFormat"], listed["metadata"]["component"]["name"]) == ("CycloneDX", "llm-finetuning")
    found = {re.sub(r"[-_.]+", "-", one["name"]).lower(): one["version"] for one in listed["components"]}
    for name, pinned in pins().items():
        try:
            version(name)
        except PackageNotFoundError:  # for another platform
            continue
        assert found[name].partition("+")[0] == pinned, name
    one = {**listed, "components": listed["components"][:3], "dependencies": []}
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(one)) is None
