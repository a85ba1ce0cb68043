#!/usr/bin/env bash
# Passes all tests, on a machine with nothing but this clone: see "Install" in README.md.
#
#   ./test.sh                          everything
#   ./test.sh unit regress isolation   some levels
#   ./test.sh driver kills             one driver scenario (test/driver/scenarios)
#   ./test.sh --seconds 600 driver statistics    a longer randomised run
#   PG_MAJOR=17 ./test.sh              against another version that Debian packages
#   PG_CONFIG=/opt/pg/bin/pg_config ./test.sh    against any installation
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/tools/environment.sh"

packages=(cmake libgtest-dev pgbouncer)
command -v node >/dev/null || command -v nodejs >/dev/null || packages+=(nodejs)
prepare_environment "${packages[@]}"
status=0
"$PYTHON" "$SOURCE_TREE/test/run.py" "$@" || status=$?
exit $status
