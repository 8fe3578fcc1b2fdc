#!/bin/sh
# Puts extensions of the field into .venv/extensions for the end-to-end tests: an operator framework and a scanner
# (Python, in an environment of their own), and a client for Node. Each package is checked against its locked hash.
# Does nothing when they are there. What this machine cannot have is told and left out.
set -eu
cd "$(dirname "$0")/.."
home=$PWD/.venv/extensions
stamp=$home/.locks
locks="packaging/extensions/python.lock packaging/extensions/package-lock.json"
# shellcheck disable=SC2086
cat $locks | cmp -s - "$stamp" && exit 0
rm -rf "$home"
mkdir -p "$home/node"
.venv/bin/python -m venv "$home/python"
if ! "$home/python/bin/pip" install --quiet --disable-pip-version-check --no-deps --require-hashes -r packaging/extensions/python.lock; then
    echo "the Python extensions cannot be installed here: tests leave them out" >&2
    rm -rf "$home/python"
fi
if command -v npm >/dev/null 2>&1; then
    cp packaging/extensions/package.json packaging/extensions/package-lock.json "$home/node/"
    (cd "$home/node" && npm ci --silent --no-audit --no-fund)
else
    echo "there is no npm on this machine: tests leave the client for Node out" >&2
fi
# shellcheck disable=SC2086
cat $locks >"$stamp"
