#!/usr/bin/env bash
# Makes web/node_modules what web/package-lock.json says, and prints the folder of a Node that is new enough for what is in there.
# What npm downloads stays in the user's cache, so that another checkout needs no network. Progress goes to stderr.
#
#   PATH=$(tools/web.sh):$PATH web/node_modules/.bin/tsc ...
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

oldest=20 # as `engines` of protoc-gen-es and playwright-core say
cache=${XDG_CACHE_HOME:-$HOME/.cache}/sluice
mkdir -p "$cache"

for program in node npm; do
	command -v "$program" >/dev/null || {
		echo "tools/web.sh: there is no $program: install Node $oldest or newer, with npm" >&2
		exit 1
	}
done

# install FOLDER STAMP: npm ci in FOLDER, unless that was done for STAMP. A lock keeps two of them from one folder, where flock exists.
install() (
	cd "$1"
	exec 9>"$cache/npm.lock"
	! command -v flock >/dev/null || flock 9
	[ "$(cat node_modules/.stamp 2>/dev/null)" != "$2" ] || exit 0
	echo "installing the packages of $1/package-lock.json (once for this version; some seconds) ..." >&2
	npm ci --cache "$cache/npm" --prefer-offline >&2
	echo "$2" >node_modules/.stamp
)

stamp() { cat "$1/package.json" "$1/package-lock.json" | sha256sum | cut -c1-16; }

# The npm of a distribution may only run with the Node it came with, so a newer one is not put before it in PATH here.
installed=$(node --version)
if [ "$(cut -d. -f1 <<<"${installed#v}")" -ge "$oldest" ]; then
	node=$(command -v node)
else
	folder=$cache/tools/node-$(stamp tools/node)
	mkdir -p "$folder"
	cp tools/node/package.json tools/node/package-lock.json tools/node/.npmrc "$folder"
	install "$folder" "$(stamp tools/node)"
	node=$(echo "$folder"/node_modules/node-linux-*/bin/node)
	"$node" --version >/dev/null
fi

install web "$(stamp web)-$(uname -sm | tr ' ' -)"
dirname "$node"
