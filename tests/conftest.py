"""Settings of all tests."""

import os

from hypothesis import settings

# Continuous integration draws the same examples every time; a run by hand draws new ones, to find what is not known yet.
settings.register_profile("repeatable", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("repeatable")
