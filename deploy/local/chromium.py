"""Where the browser of this machine is. Apart from `browser.py`, whose Playwright takes a while to load."""

import shutil

_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")


def find_chromium() -> str | None:
    return next(filter(None, map(shutil.which, _NAMES)), None)
