#!/usr/bin/env bash
# Runs the driver scenario 'libraries' with real cache libraries: what they store is invalidated.
#
#   tools/cache_libraries.sh
#   CACHE_LIBRARIES=/srv/libraries tools/cache_libraries.sh     another folder for them
#
# cache-manager, keyv, bentocache, connect-redis (7 to 9), ioredis and redis come from npm, Django and django-redis are
# Debian's packages, unpacked; all of it once, into a folder that is kept.  Nothing is installed.
set -euo pipefail

tree=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=${CACHE_LIBRARIES:-/var/tmp/cache_ext_libraries}

node_packages=(cache-manager keyv @keyv/redis bentocache connect-redis express-session ioredis redis
	connect-redis-7@npm:connect-redis@7 connect-redis-8@npm:connect-redis@8 connect-redis-9@npm:connect-redis@9)
debian_packages=(python3-django python3-django-redis python3-redis python3-asgiref python3-sqlparse python3-tz
	python3-async-timeout python3-packaging)

if [ ! -e "$folder/complete-2" ]; then
	mkdir -p "$folder/packages"
	cd "$folder"
	npm init -y >/dev/null
	npm install --no-audit --no-fund "${node_packages[@]}"
	(cd packages && apt-get download "${debian_packages[@]}")
	for package in packages/*.deb; do
		dpkg-deb -x "$package" .
	done
	touch complete-2
fi
CACHE_EXT_LIBRARIES=$folder exec "$tree/test.sh" driver libraries
