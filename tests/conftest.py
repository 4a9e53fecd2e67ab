"""For every test: servers that keep one cell ready instead of four, for most of them start two containers and end; and
without the shipped packages, which tests of these ask for."""

from __future__ import annotations

import os

os.environ.setdefault("VISP_CONTAINER__BLANKS", "1")
os.environ.setdefault("VISP_CATALOG__PACKAGES", "")
