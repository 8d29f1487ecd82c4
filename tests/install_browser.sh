#!/usr/bin/env bash
# Make sure that there is a Chromium for the browser tests: the system's if there is one, Debian's for root, else
# Playwright's own download.
set -eu
for name in chromium chromium-browser google-chrome; do
    if command -v "$name" >/dev/null; then exit 0; fi
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update
    apt-get install --yes --no-install-recommends chromium
else
    python -m playwright install chromium
fi
