#!/usr/bin/env bash
# Runs driver scenarios against the Redis 8 and the Valkey 8 of Debian 13, on any Debian.
#
#   tools/other_redis.sh                          the scenarios below, both servers
#   tools/other_redis.sh valkey redis_link        one server, some scenarios
#   OTHER_REDIS=/srv/trixie tools/other_redis.sh  another folder for the unpacked system
#
# A minimal Debian 13 is unpacked once into a folder (as root; about 300 MB from the network) and kept.
# Nothing is installed and nothing of it is started but the server under test, with its own libraries.
set -euo pipefail

. "$(dirname "${BASH_SOURCE[0]}")/debian.sh"

folder=${OTHER_REDIS:-/var/tmp/cache_ext_trixie}
scenarios=(redis_link redis_shared redis_tls delivery outage sessions)
servers=(redis valkey)

# A folder with a program redis-server that is the other server, run by its own system's loader.
wrap() {
	local bin=$folder.bin/$1 loader library
	loader=$(find "$folder/usr/lib" -maxdepth 2 -name 'ld-linux-*.so.*' | head -n 1)
	library=$(dirname "$(find "$folder/usr/lib" -maxdepth 2 -name 'libc.so.6' | head -n 1)")
	[ -n "$loader" ] && [ -n "$library" ] || fail "no libraries in $folder"
	mkdir -p "$bin"
	printf '#!/bin/sh\nexec "%s" --library-path "%s" "%s" "$@"\n' \
		"$loader" "$library" "$folder/usr/bin/$1-server" >"$bin/redis-server"
	chmod -R a+rX "$folder.bin"
	chmod 755 "$bin/redis-server"
	echo "$bin"
}

case ${1:-} in redis | valkey)
	servers=("$1")
	shift
	;;
esac
[ $# -eq 0 ] || scenarios=("$@")

unpack_debian trixie "$folder" redis-server,valkey-server
status=0
for server in "${servers[@]}"; do
	bin=$(wrap "$server")
	printf '\033[1m==>\033[0m %s\n' "$("$bin/redis-server" --version)"
	PATH=$bin:$PATH "$tree/test.sh" driver "${scenarios[@]}" || status=1
done
exit $status
