#!/usr/bin/env bash
# Make sure that there is a C compiler: the system's if there is one, Debian's for root. With another one for aarch64
# and an emulator of it, the tests run the kernels as on that processor, too; without, they skip that.
set -eu
install() { apt-get install --yes --no-install-recommends "$@"; }
compilers=$(command -v cc gcc clang || true)
others=$(command -v aarch64-linux-gnu-gcc qemu-aarch64 | wc -l)
if [ -n "$compilers" ] && [ "$others" = 2 ]; then exit 0; fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then exit 0; fi
apt-get update
[ -n "$compilers" ] || install gcc libc6-dev
[ "$(uname -m)" != x86_64 ] || install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user || true
