"""Refreshes lock.toml: python packaging/lock.py STORE"""

from build.refresh import main

main()
