#!/usr/bin/env bash
# Makes sure of what no Go module can bring: a C compiler, which the race detector links with. On a Debian machine it is
# installed if we may; anywhere else the message says what to do.
set -euo pipefail

if command -v "$(go env CC | cut -d' ' -f1)" >/dev/null; then
	exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
	echo "The race detector needs a C compiler: install gcc and the C library's headers." >&2
	exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -o DPkg::Lock::Timeout=300 update -q
apt-get -o DPkg::Lock::Timeout=300 install -q -y --no-install-recommends gcc libc6-dev
