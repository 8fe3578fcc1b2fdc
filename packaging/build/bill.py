"""Stage bill: `sbom.spdx.json`, everything that is inside, where it comes from and under which licence (SPDX 2.3)."""

from __future__ import annotations

import json
import re
from typing import Any

from build.inputs import Input
from build.stage import Work

_PURLS = {"debian": "deb/debian", "pypi": "pypi", "npm": "npm"}


def bill(work: Work) -> None:
    """What the executable holds."""
    (work.out / "sbom.spdx.json").write_text(document(work, "k3s"))


def document(work: Work, name: str) -> str:
    """What is in something of this name: one package for each input of the stage, and our own."""
    version = re.search(r'^VERSION = "(.+)"', (work.root / "src/k3s/__init__.py").read_text(), re.MULTILINE)
    assert version is not None
    title = f"{name}-{version.group(1)}-{work.arch}"
    ours = _package("k3s", version.group(1), "Apache-2.0", "")
    rows = [work.rows[name] for name in sorted(work.rows)]
    packages = [ours, *(_of_row(row) for row in rows)]
    document = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": title,
        "documentNamespace": f"https://spdx.org/spdxdocs/{title}-{work.facts['commit']}",
        # A fixed time: the same inputs give the same bytes.
        "creationInfo": {"created": "1980-01-01T00:00:00Z", "creators": ["Tool: k3s-build"]},
        "packages": packages,
        "relationships": [
            {
                "spdxElementId": "SPDXRef-DOCUMENT",
                "relationshipType": "DESCRIBES",
                "relatedSpdxElement": ours["SPDXID"],
            },
            *(
                {"spdxElementId": ours["SPDXID"], "relationshipType": "CONTAINS", "relatedSpdxElement": each["SPDXID"]}
                for each in packages[1:]
            ),
        ],
    }
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def _of_row(row: Input) -> dict[str, Any]:
    made = _package(row.name, row.version, row.licence, row.digest)
    if row.kind in _PURLS:
        locator = f"pkg:{_PURLS[row.kind]}/{row.name}@{row.version}"
        made["externalRefs"] = [
            {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": locator}
        ]
    return made


def _package(name: str, version: str, licence: str, digest: str) -> dict[str, Any]:
    made: dict[str, Any] = {
        "SPDXID": "SPDXRef-" + re.sub(r"[^A-Za-z0-9.-]", "-", name),
        "name": name,
        "versionInfo": version,
        "licenseDeclared": licence if re.fullmatch(r"[A-Za-z0-9.+() -]+", licence) else "NOASSERTION",
        "licenseConcluded": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "downloadLocation": "NOASSERTION",
    }
    if digest:
        made["checksums"] = [{"algorithm": "SHA256", "checksumValue": digest}]
    return made
