"""Builds everything that a release hands out: python packaging/release.py [--out dist/VERSION]"""

from build.release import main

main()
