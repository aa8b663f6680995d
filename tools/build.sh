#!/usr/bin/env bash
# Builds one of the project's tools at the version its go.mod pins, and prints the path of the binary.
#
#   tools/build.sh buf | golangci-lint | grpcurl | connectconformance | grpc-interop | h2spec
#
# Each tool has a go.mod of its own (docs/decisions/0002), so that none of its dependencies reaches the product. The
# binary is kept in the user's cache under a stamp of the toolchain and the module's two files: nothing is built twice,
# and a changed pin never runs an old binary. Progress goes to stderr, the path alone to stdout.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

case "${1:-}" in
buf) module=tools package=github.com/bufbuild/buf/cmd/buf ;;
golangci-lint) module=tools/lint package=github.com/golangci/golangci-lint/v2/cmd/golangci-lint ;;
grpcurl) module=tools/grpcurl package=github.com/fullstorydev/grpcurl/cmd/grpcurl ;;
connectconformance) module=test/conformance/tools/connectconformance package=connectrpc.com/conformance/cmd/connectconformance ;;
grpc-interop) module=test/conformance/tools/grpc-interop package=google.golang.org/grpc/interop/client ;;
h2spec) module=test/conformance/tools/h2spec package=github.com/summerwind/h2spec/cmd/h2spec ;;
*)
	echo "usage: ${0##*/} buf|golangci-lint|grpcurl|connectconformance|grpc-interop|h2spec" >&2
	exit 2
	;;
esac
name=$1
cd "$root/$module"

stamp=$({
	go version
	cat go.mod go.sum
} | sha256sum | cut -c1-16)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/sluice/tools
binary=$cache/$name-$stamp

if [ ! -x "$binary" ]; then
	mkdir -p "$cache"
	unfinished=$(mktemp "$cache/.$name-XXXXXX")
	trap 'rm -f "$unfinished"' EXIT
	echo "building $name (once for this version; a minute or two on two cores) ..." >&2
	started=$SECONDS
	# Another build may finish first: the rename is atomic and both binaries are the same.
	CGO_ENABLED=0 GOOS='' GOARCH='' GOFLAGS='' nice -n "${SLUICE_NICE:-5}" \
		go build -trimpath -buildvcs=false -ldflags='-s -w' -p 2 -o "$unfinished" "$package" >&2
	chmod 0755 "$unfinished"
	mv "$unfinished" "$binary"
	echo "built $name in $((SECONDS - started)) s" >&2
fi
printf '%s\n' "$binary"
