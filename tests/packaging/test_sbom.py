"""The bill of materials has everything in the lock, or is not made at all."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from app import __version__
from tests.conftest import ROOT

SCRIPT = ROOT / ".github" / "scripts" / "sbom.py"
specification = importlib.util.spec_from_file_location("sbom", SCRIPT)
assert specification is not None
assert specification.loader is not None
sbom = importlib.util.module_from_spec(specification)
specification.loader.exec_module(sbom)


def component(name: str, version: str, *algorithms: str) -> dict[str, object]:
    hashes = [{"alg": algorithm, "content": "0"} for algorithm in algorithms]
    return {"name": name, "version": version, "externalReferences": [{"type": "distribution", "hashes": hashes}]}


def test_the_lock_is_read_as_pip_reads_it(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text(
        "# a==0\na==1.0 \\\n    --hash=sha256:00\n"
        "b[extra]==2 ; python_version < '4' \\\n    --hash=sha256:00\n    # via a==1\n"
    )

    assert sbom.locked(tmp_path / "lock") == {"a": "1.0", "b": "2"}
    assert sbom.locked(ROOT / "requirements.lock").keys() >= {"fastapi", "psycopg2-binary", "python-jose"}


def test_missing_packages_wrong_versions_and_missing_hashes_are_found() -> None:
    document = {
        "components": [component("a", "1", "SHA-256"), component("b", "2", "MD5"), component("c", "4", "SHA-256")]
    }

    assert sbom.missing(document, {"a": "1", "b": "2", "c": "3", "d": "4"}) == ["b==2", "c==3", "d==4"]


@pytest.mark.skipif(importlib.util.find_spec("cyclonedx_py") is None, reason="requirements-audit.lock is not installed")
def test_the_real_one_is_complete_and_the_same_each_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        command = [sys.executable, str(SCRIPT), "requirements.lock", str(tmp_path / name)]
        subprocess.run(command, cwd=ROOT, capture_output=True, check=True)

    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    document = json.loads((tmp_path / "one").read_text())
    assert document["bomFormat"] == "CycloneDX"
    assert document["metadata"]["component"]["version"] == __version__
    assert len(document["components"]) == len(sbom.locked(ROOT / "requirements.lock"))
