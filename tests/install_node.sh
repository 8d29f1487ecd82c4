#!/usr/bin/env bash
# Make sure that there is a Node 24 for tests/test_ssr.py, as Spaces have: the system's if there is one, else npm's
# package `node`, in the ignored folder .node. Debian's npm is installed for root where there is none.
set -eu
cd "$(dirname "$0")/.."
for node in node .node/node_modules/.bin/node; do
    if "$node" --eval 'process.exit(parseInt(process.versions.node) < 24)' 2>/dev/null; then exit 0; fi
done
if ! command -v npm >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update
    apt-get install --yes --no-install-recommends npm
fi
npm install --no-fund --no-audit --no-save --prefix .node node@24
