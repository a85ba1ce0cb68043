#!/usr/bin/env bash
# Passes all tests, on a machine with nothing but this clone: see "Install" in README.md.
#
#   ./test.sh                          everything
#   ./test.sh unit regress isolation   some levels
#   ./test.sh driver kills             one driver scenario (test/driver/scenarios)
#   ./test.sh --seconds 600 driver statistics    a longer randomised run
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/tools/environment.sh"

prepare_environment "postgresql-$PG_MAJOR" "postgresql-server-dev-$PG_MAJOR" redis-server libhiredis-dev g++ make \
	cmake libgtest-dev python3 python3-psycopg2
status=0
"$PYTHON" "$SOURCE_TREE/test/run.py" "$@" || status=$?
exit $status
