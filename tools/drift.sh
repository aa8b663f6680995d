#!/usr/bin/env bash
# Fails if gen/ is not what buf generates from proto/ now. The code is generated into a temporary folder and compared, so the
# work tree stays as it is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

buf=$(tools/build.sh buf)
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT

"$buf" generate --output "$fresh"
if ! diff -r -q "$fresh/gen" gen; then
	diff -r -u gen "$fresh/gen" | head -60 || true
	echo "gen/ is not what proto/ generates: run \`make generate\` and commit the result" >&2
	exit 1
fi
echo "gen/ is what proto/ generates"
