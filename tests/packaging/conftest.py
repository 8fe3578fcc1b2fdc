"""The modules of the build are no package of ours: they are found beside packaging/, or there is nothing to test."""

import sys
from pathlib import Path

PACKAGING = Path(__file__).resolve().parents[2] / "packaging"
sys.path.insert(0, str(PACKAGING))
collect_ignore_glob = [] if (PACKAGING / "build").is_dir() else ["test_*.py"]
