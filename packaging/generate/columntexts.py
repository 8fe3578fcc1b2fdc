"""Makes `src/k3s/api/data/columntexts.json`: what each table column means, as recorded answers of an API server say it.

    python packaging/generate/columntexts.py FOLDER_OF_TRANSCRIPTS

`texts` is a list; `shared` is column name -> number of its text, for columns that mean the same wherever they are
shown; `kinds` is plural -> column name -> number, for the others. The result is committed.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parents[2] / "src/k3s/api/data"


def tables(node: Any) -> Iterator[list[dict[str, Any]]]:
    """The column definitions of every table inside an answer."""
    if isinstance(node, dict):
        if node.get("columnDefinitions"):
            yield node["columnDefinitions"]
        node = list(node.values())
    for inner in node if isinstance(node, list) else ():
        yield from tables(inner)


def plural(path: str) -> str:
    """The plural of the kind that an API path is about."""
    parts = path.partition("?")[0].strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    if not parts:
        return ""
    return parts[2] if parts[0] == "namespaces" and len(parts) > 2 else parts[0]


def recorded(folder: Path, known: set[str]) -> dict[str, dict[str, str]]:
    """plural -> column name -> text, of built-in kinds."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for file in sorted(folder.glob("*.json")):
        for scenario in json.loads(file.read_text()):
            for step in scenario["steps"]:
                kind = plural((step.get("watch") or step)["path"])
                for columns in tables(step.get("expect")) if kind in known else ():
                    found[kind].update({column["name"]: column["description"] for column in columns})
    return found


def main(folder: Path) -> None:
    known = {name for kinds in json.loads((DATA / "columns.json").read_text()).values() for name in kinds}
    found = recorded(folder, known | {"csistoragecapacities", "serviceaccounts", "limitranges"})
    places: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for kind, columns in found.items():
        for name, text in columns.items():
            places[name][text].add(kind)
    texts = sorted({text for columns in found.values() for text in columns.values()})
    shared = {
        n: texts.index(next(iter(t))) for n, t in places.items() if len(t) == 1 and len(next(iter(t.values()))) > 1
    }
    kinds = {
        kind: {name: texts.index(text) for name, text in sorted(columns.items()) if name not in shared}
        for kind, columns in sorted(found.items())
    }
    data = {"texts": texts, "shared": shared, "kinds": {kind: columns for kind, columns in kinds.items() if columns}}
    text = json.dumps(data, indent=0, sort_keys=True, ensure_ascii=False)
    (DATA / "columntexts.json").write_text(text + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
