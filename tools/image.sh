#!/usr/bin/env bash
# Builds the container image into dist/sluice-image.tar, without a container engine. Arguments go to deploy/image, such as
# -platforms linux/amd64.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

stamp=$("$root/tools/stamp.sh")
cd "$root/deploy/image"
exec go run . -source "$root" -stamp "$stamp" -out "$root/dist/sluice-image.tar" "$@"
