"""Shared ground of the tests."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# `python -m pytest` puts the checkout on sys.path, where `zoo`, `callbacks` and `training`
# would be second copies of the installed packages.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]
