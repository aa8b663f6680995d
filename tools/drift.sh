#!/usr/bin/env bash
# Fails if gen/ or web/src/gen/ is not what buf generates from proto/ now. The code is generated into a temporary folder and
# compared, so the work tree stays as it is. Where there is no Node the TypeScript is not compared, and that is said; with CI set
# it is a failure.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

buf=$(tools/build.sh buf)
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT

# compare FOLDER [ARGUMENT...]: FOLDER and what `buf generate ARGUMENT...` writes there.
compare() {
	folder=$1
	shift
	"$buf" generate --output "$fresh" "$@"
	if ! diff -r -q "$fresh/$folder" "$folder"; then
		diff -r -u "$folder" "$fresh/$folder" | head -60 || true
		echo "$folder/ is not what proto/ generates: run \`make generate\` and commit the result" >&2
		exit 1
	fi
	echo "$folder/ is what proto/ generates"
}

compare gen
if node=$(tools/web.sh); then
	PATH=$node:$PATH compare web/src/gen --template buf.gen.web.yaml
elif [ -n "${CI:-}" ]; then
	exit 1
else
	printf '\n*** NOT COMPARED: web/src/gen/\n\n' >&2
fi
