#!/usr/bin/env bash
# Generates clients of the API from openapi/banger.json: a package for Python, and types for TypeScript.
# `scripts/setup.sh clients` installs the generators.
#
#   scripts/api-clients/generate.sh FOLDER
set -euo pipefail
[ $# = 1 ] || { echo "usage: generate.sh FOLDER" >&2; exit 2; }
mkdir -p "$1"
to=$(cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..
tools=$root/.cache/tools
document=$root/openapi/banger.json

rm -rf "$to/python" "$to/typescript"
mkdir -p "$to/python" "$to/typescript"
plain=$(mktemp)
trap 'rm -f "$plain"' EXIT
python3 "$here/plain.py" "$document" >"$plain"
"$tools/api-clients-python/bin/openapi-python-client" generate --path "$plain" --meta none \
  --output-path "$to/python/banger_api_client" --config "$here/python/config.yml" \
  --fail-on-warning >&2
grep -E '^(httpx|attrs)==' "$here/python/requirements.txt" | sed 's/ .*//' \
  >"$to/python/requirements.txt"
node "$tools/api-clients-typescript/node_modules/openapi-typescript/bin/cli.js" "$document" \
  --output "$to/typescript/banger.d.ts" >&2
