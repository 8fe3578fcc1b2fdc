#!/bin/sh
# Sets up development: the locked runtime and development dependencies, and the system packages that tests with real
# parts need. Does nothing when both are there.
set -eu
cd "$(dirname "$0")/.."
./k3s setup
stamp=.venv/.k3s-dev-lock
if ! cmp -s requirements-dev.lock "$stamp"; then
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-dev.lock
    cp requirements-dev.lock "$stamp"
fi
./packaging/clients.sh
./packaging/extensions.sh
missing=""
for package in containerd runc containernetworking-plugins nftables conntrack iptables iproute2 catatonit busybox-static bind9-dnsutils lz4 zstd kmod socat bridge-utils ethtool ipset debootstrap nix-bin systemd-container qemu-user-static gcc libc6-dev; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q "ok installed" || missing="$missing $package"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    apt-get -qq update
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $missing >/dev/null
else
    echo "tests of nodes need these packages; run: sudo apt-get install -y$missing" >&2
fi
