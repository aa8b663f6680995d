#!/usr/bin/env bash
# Makes sure of what no module or package can bring: a C compiler, which the race detector links with; curl, which runs the examples of
# docs/rest.md; and Chromium with Node and npm, which the tests of the web port drive. On a Debian machine they are installed if we may.
# Anywhere else the message says what to do; without curl or a browser those tests are skipped.
set -euo pipefail

packages=()
command -v "$(go env CC | cut -d' ' -f1)" >/dev/null || packages+=(gcc libc6-dev)
command -v curl >/dev/null || packages+=(curl)
command -v chromium >/dev/null || packages+=(chromium)
command -v node >/dev/null || packages+=(nodejs)
command -v npm >/dev/null || packages+=(npm)
[ ${#packages[@]} != 0 ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	echo "installing ${packages[*]} (once on this machine; some minutes) ..."
	export DEBIAN_FRONTEND=noninteractive
	apt-get -o DPkg::Lock::Timeout=300 update -q
	apt-get -o DPkg::Lock::Timeout=300 install -q -y --no-install-recommends "${packages[@]}"
	exit 0
fi
case " ${packages[*]} " in
*" gcc "*)
	echo "The race detector needs a C compiler: install gcc and the C library's headers." >&2
	exit 1
	;;
esac
echo "The tests of the web port will be skipped: they need ${packages[*]} in PATH." >&2
