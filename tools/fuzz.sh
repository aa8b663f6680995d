#!/usr/bin/env bash
# Finds every fuzz target of the repository, runs each for FUZZTIME (default 60s), and prints a table. Exits 1 if any found
# something; go has then written the input to the testdata folder of its package, to be committed as a regression test.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fuzztime=${FUZZTIME:-60s}
table=()
failed=0

while IFS=: read -r file function; do
	folder=$(dirname "$file")
	target=$(sed -E 's/^func (Fuzz[A-Za-z0-9_]*).*/\1/' <<<"$function")
	printf '\n==> %s %s for %s\n' "$folder" "$target" "$fuzztime"
	verdict=ok
	# The pattern of -run matches no test: the seeds alone are `make test`.
	# An input whose coverage depends on chance is never minimal: without a bound that takes a minute each.
	(cd "$folder" && go test -run '^$' -fuzz "^${target}\$" -fuzztime "$fuzztime" -fuzzminimizetime 10x -timeout 0 .) || { verdict=FOUND failed=1; }
	table+=("$(printf '%-6s %-40s %s' "$verdict" "$target" "$folder")")
done < <(grep -rE '^func Fuzz[A-Za-z0-9_]*\(' --include='*_test.go' --exclude-dir=node_modules --exclude-dir=testdata . | sort)

printf '\n'
if [ ${#table[@]} -eq 0 ]; then
	echo "no fuzz target found"
	exit 1
fi
printf '%s\n' "${table[@]}"
exit "$failed"
