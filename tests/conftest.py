"""For every test: servers that keep one cell ready instead of four, for most of them start two containers and end."""

from __future__ import annotations

import os

os.environ.setdefault("VISP_CONTAINER__BLANKS", "1")
