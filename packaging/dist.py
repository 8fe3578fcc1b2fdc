"""Builds the executable: python packaging/dist.py [--arch amd64] [--store FOLDER] [--out dist]"""

from build.command import main

main()
