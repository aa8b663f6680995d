#!/usr/bin/env bash
# Prints the folder of every Go module of the repository that has code of ours: the main one first, then those nested in
# it. The modules below tools/ have none; they only pin versions.
#
#   tools/modules.sh          each module with Go files
#   tools/modules.sh tests    each module with tests
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

pattern='*.go'
[ "${1:-}" != tests ] || pattern='*_test.go'

find . -name go.mod -not -path '*/node_modules/*' -not -path '*/testdata/*' -not -path './tools/*' |
	sort | while read -r file; do
	module=${file%/go.mod}
	# A nested module's files are not this module's.
	nested=()
	while read -r other; do
		nested+=(-not -path "${other%/go.mod}/*")
	done < <(find "$module" -mindepth 2 -name go.mod)
	if [ -n "$(find "$module" -name "$pattern" "${nested[@]}" -print -quit)" ]; then
		printf '%s\n' "$module"
	fi
done
