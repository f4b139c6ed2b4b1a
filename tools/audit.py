"""Holds the pins of requirements.txt against the known vulnerabilities: what ``make audit`` runs.

The advisories are OSV's. Where they cannot be reached it says so, and that is no failure; a pin with a known
vulnerability is. What it is given goes to pip-audit: ``make audit ARGS="--ignore-vuln ID"``.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PINS = ROOT / "requirements.txt"
SECONDS = 180  # for all of it
CONNECTION_SECONDS = 10


def main(given: list[str]) -> int:
    command = [sys.executable, "-m", "pip_audit", "-r", str(PINS), "--no-deps", "--disable-pip", *given]
    command += ["--progress-spinner", "off"]
    tried = subprocess.run([*command, "--dry-run"], capture_output=True, text=True)
    if tried.returncode:
        print(f"make audit: pip-audit refuses {PINS.name} or an option:\n{tried.stderr}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        asked = [*command, "-s", "osv", "--timeout", str(CONNECTION_SECONDS), "-f", "json", "-o", str(report)]
        try:
            done = subprocess.run(asked, capture_output=True, text=True, timeout=SECONDS)
            why = (done.stderr.splitlines() or [""])[-1]
        except subprocess.TimeoutExpired:
            why = f"no answer in {SECONDS} seconds"
        if not report.is_file():
            print(f"make audit: NOT audited, the advisories cannot be reached: {why[:200]}")
            return 0
        return _tell(json.loads(report.read_text("utf-8"))["dependencies"])


def _tell(packages: list[dict[str, Any]]) -> int:
    found = [(one, fault) for one in packages for fault in one.get("vulns", [])]
    for package, fault in found:
        mended = ", ".join(fault["fix_versions"]) or "no version yet"
        print(
            f"{package['name']} {package['version']}: {fault['id']} (mended in {mended}): {fault['description']}"
        )
    print(f"make audit: {len(packages)} packages, {len(found)} known vulnerabilities")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
