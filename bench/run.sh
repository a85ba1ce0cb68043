#!/usr/bin/env bash
# Measures what README.md claims: see bench/README.md.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../tools/environment.sh"

prepare_environment "postgresql-$PG_MAJOR" "postgresql-server-dev-$PG_MAJOR" redis-server libhiredis-dev g++ make \
	python3 python3-psycopg2
status=0
"$PYTHON" "$SOURCE_TREE/bench/run.py" "$@" || status=$?
exit $status
