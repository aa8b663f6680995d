#!/usr/bin/env bash
# Runs named steps one after another and prints, at the end, how each went and how long it took.
#
#   tools/steps.sh 'name=command' ...
#
# A step that fails does not keep the later ones from running, so that one run finds everything there is to find.
# Exits 1 if any failed.
set -uo pipefail

table=()
failed=0
begun=$SECONDS

for step in "$@"; do
	name=${step%%=*}
	command=${step#*=}
	printf '\n==> %s\n' "$name"
	started=$SECONDS
	if bash -euo pipefail -c "$command"; then
		verdict=ok
	else
		verdict=FAILED
		failed=1
	fi
	table+=("$(printf '%-8s %-28s %4d s' "$verdict" "$name" $((SECONDS - started)))")
done

printf '\n'
printf '%s\n' "${table[@]}"
printf '%-8s %-28s %4d s\n' "" total $((SECONDS - begun))
exit "$failed"
