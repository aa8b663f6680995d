#!/usr/bin/env bash
# Lints the Go code of every module with the one configuration of the repository. Arguments go to golangci-lint.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD

lint=$(tools/build.sh golangci-lint)
failed=0
for module in $(tools/modules.sh); do
	echo "--- module $module"
	(cd "$module" && "$lint" run --config "$root/.golangci.yml" --timeout 20m "$@" ./...) || failed=1
done
exit "$failed"
