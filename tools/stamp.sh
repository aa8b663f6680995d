#!/usr/bin/env bash
# Prints the linker flags that stamp a binary with the commit it is built from: `go build -ldflags "$(tools/stamp.sh)"`. The date is the
# commit's, so that a commit always makes the same binary. Where the source is no repository, or one that git does not trust, it prints
# nothing and the binary calls itself devel.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

[ "$(git rev-parse --show-toplevel 2>/dev/null)" = "$(pwd -P)" ] || exit 0 # an archive may lie in a repository of its user's
commit=$(git rev-parse HEAD)
date=$(TZ=UTC0 git log -1 --format=%cd --date='format-local:%Y-%m-%dT%H:%M:%SZ')
version=$(git describe --tags --match 'v[0-9]*' --dirty 2>/dev/null) || {
	version=v0.0.0-${date//[-:TZ]/}-${commit:0:12} # as Go calls a commit before the first tag
	git diff-index --quiet HEAD -- || version+=-dirty
}
printf -- '-X main.version=%s -X main.commit=%s -X main.date=%s\n' "$version" "$commit" "$date"
