"""Installs k3s beside the system's own containerd: python packaging/wrapper.py --prefix /opt/k3s"""

from build.wrapper import main

main()
