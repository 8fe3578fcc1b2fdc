"""Makes src/k3s/apiserver/data/rbac.json from the facts: upstream's default roles and bindings, without what all share.

python packaging/generate/rbac.py FACTS/rbac-bootstrap.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parents[2] / "src/k3s/apiserver/data/rbac.json"
SHARED_LABEL = "kubernetes.io/bootstrapping"


def compact(obj: dict[str, Any]) -> dict[str, Any]:
    """An object without the label and annotation that every bootstrap object has."""
    labels = {key: value for key, value in obj.get("labels", {}).items() if key != SHARED_LABEL}
    kept = {key: obj[key] for key in ("rules", "aggregationRule", "roleRef", "subjects") if obj.get(key)}
    return {**kept, "labels": labels} if labels else kept


def main(source: Path) -> None:
    """Reads the facts and writes the table."""
    facts = json.loads(source.read_text())
    rows = []
    for key, kind in (("clusterroles", "ClusterRole"), ("clusterrolebindings", "ClusterRoleBinding")):
        rows += [[kind, "", name, compact(obj)] for name, obj in sorted(facts[key].items())]
    for key, kind in (("roles", "Role"), ("rolebindings", "RoleBinding")):
        for namespace, named in sorted(facts[key].items()):
            rows += [[kind, namespace, name, compact(obj)] for name, obj in sorted(named.items())]
    TARGET.write_text("[\n" + ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows) + "\n]\n")
    print(f"{TARGET}: {len(rows)} objects")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
