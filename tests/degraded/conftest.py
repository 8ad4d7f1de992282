"""Lets the tests of this directory import what stands beside them, and what they also start as programs."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent))
