#!/usr/bin/env python3
"""Write the SBOM (CycloneDX) of a hashed lock, and fail if a package is missing: `sbom.py LOCK OUTPUT`.

Requires the packages of requirements-audit.lock. The same lock gives the same bytes.
"""

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any


def version() -> str:
    """Return the version of the application, which pyproject.toml does not state."""
    return str(runpy.run_path("app/__init__.py")["__version__"])


def locked(lock: Path) -> dict[str, str]:
    """Return the version of each package in the lock."""
    return dict(re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)", lock.read_text(), re.MULTILINE))


def missing(sbom: dict[str, Any], wanted: dict[str, str]) -> list[str]:
    """Return the packages of the lock that the document lacks, with version and SHA-256."""
    found = {
        (component["name"], component["version"])
        for component in sbom["components"]
        if any(
            checksum["alg"] == "SHA-256"
            for reference in component.get("externalReferences", ())
            for checksum in reference.get("hashes", ())
        )
    }
    return sorted(f"{name}=={version}" for name, version in wanted.items() if (name, version) not in found)


def main() -> None:
    lock, output = Path(sys.argv[1]), Path(sys.argv[2])
    command = [sys.executable, "-m", "cyclonedx_py", "requirements", "--pyproject", "pyproject.toml"]
    subprocess.run([*command, "--output-reproducible", "-o", str(output), str(lock)], check=True)  # noqa: S603 - ours.
    wanted = locked(lock)
    document = json.loads(output.read_text())
    if not wanted or (absent := missing(document, wanted)):
        sys.exit(f"error: the bill of materials lacks {', '.join(absent) if wanted else 'everything'}")
    document["metadata"]["component"]["version"] = version()
    output.write_text(json.dumps(document, indent=2) + "\n")
    print(f"{output}: all {len(wanted)} packages of {lock}, with hashes")  # noqa: T201 - what it is for.


if __name__ == "__main__":
    main()
