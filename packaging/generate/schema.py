"""Makes `src/k3s/api/data/schema.json`, every definition of the default API, from a folder of facts.

    python packaging/generate/schema.py FOLDER_OF_FACTS

One definition a line, so that a change of the API is a readable change of the file. The result is committed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

DATA = Path(__file__).resolve().parents[2] / "src/k3s/api/data"


def main(folder: Path) -> None:
    definitions = json.loads((folder / "schema.json").read_text())["definitions"]
    lines = [
        f"{json.dumps(name)}:{json.dumps(definitions[name], separators=(',', ':'), sort_keys=True)}"
        for name in sorted(definitions)
    ]
    (DATA / "schema.json").write_text("{" + ",\n".join(lines) + "}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
