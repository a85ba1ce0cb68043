#!/usr/bin/env bash
# Shows the extension at work on the tables of a bag-tracking application: see README.md.
#
#   ./demo.sh                    200,000 bags
#   ./demo.sh --bags 1800000     production size
#   ./demo.sh --no-redis         what is different without a Redis
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/tools/environment.sh"

prepare_environment
status=0
"$PYTHON" "$SOURCE_TREE/bench/demo.py" "$@" || status=$?
exit $status
