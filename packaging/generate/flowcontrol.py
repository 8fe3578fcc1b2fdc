"""Makes src/k3s/apiserver/data/flowcontrol.json from the facts: upstream's flow schemas and priority levels.

python packaging/generate/flowcontrol.py FACTS/bootstrap-objects.json

Rows of [kind, name, spec], one for each object. The result is committed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

TARGET = Path(__file__).parents[2] / "src/k3s/apiserver/data/flowcontrol.json"
KINDS = {"prioritylevelconfigurations": "PriorityLevelConfiguration", "flowschemas": "FlowSchema"}


def main(source: Path) -> None:
    """Reads the facts and writes the table."""
    facts = json.loads(source.read_text())["atStart"]
    rows = [[kind, obj["metadata"]["name"], obj["spec"]] for plural, kind in KINDS.items() for obj in facts[plural]]
    TARGET.write_text("[\n" + ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows) + "\n]\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
