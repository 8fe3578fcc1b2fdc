"""Makes `src/k3s/api/data/columns.json`, the table columns of the default API, from a folder of facts.

    python packaging/generate/columns.py FOLDER_OF_FACTS

group version -> plural -> list of [name, type, format, priority]. The result is committed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

DATA = Path(__file__).resolve().parents[2] / "src/k3s/api/data"


def main(folder: Path) -> None:
    columns = json.loads((folder / "table-columns.json").read_text())["columns"]
    kinds = json.loads((folder / "api-resources.json").read_text())["groupVersions"]
    served = {gv: columns[gv] for gv in sorted(columns) if kinds[gv]["default"]}
    text = json.dumps(served, separators=(",", ":"), sort_keys=True)
    (DATA / "columns.json").write_text(text + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
