#!/usr/bin/env bash
# Measures what README.md claims: see bench/README.md.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../tools/environment.sh"

prepare_environment
status=0
"$PYTHON" "$SOURCE_TREE/bench/run.py" "$@" || status=$?
exit $status
