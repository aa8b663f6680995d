#!/usr/bin/env bash
# Runs every test of every module under the race detector and reports it (test/report): one line a package, the output of
# what failed, every skip. With CI set a skipped test is a failure. Arguments go to `go test`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD

mkdir -p bin
go build -o bin/report ./test/report

flags=()
[ -z "${CI:-}" ] || flags+=(-fail-on-skip)

failed=0
for module in $(tools/modules.sh tests); do
	echo "--- module $module"
	# Two packages at a time: more only makes tests with deadlines compete for the processor.
	(cd "$module" && go test -json -race -p 2 -timeout "${TEST_TIMEOUT:-20m}" "$@" ./... | "$root/bin/report" "${flags[@]}") || failed=1
done
exit "$failed"
