#!/usr/bin/env bash
# Passes the tests inside another Debian: with its PostgreSQL, its Redis and its compiler.
#
#   tools/other_postgresql.sh                      Debian 13 (PostgreSQL 17), all tests
#   tools/other_postgresql.sh sid driver kills     Debian sid (PostgreSQL 18); the arguments are test.sh's
#   OTHER_DEBIAN=/srv tools/other_postgresql.sh    another place for the folders with the systems
#
# As root.  A minimal system is unpacked once into a folder (about 1.5 GB from the network) and kept; test.sh
# installs there what it needs.  It sees this clone, and has processes, mounts and shared memory of its own,
# which end with it.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/debian.sh"

suite=trixie
case ${1:-} in trixie | forky | sid)
	suite=$1
	shift
	;;
esac
folder=${OTHER_DEBIAN:-/var/tmp/cache_ext_debian}/$suite

[ "$(id -u)" = 0 ] || fail "this needs root"
unpack_debian "$suite" "$folder" ca-certificates,nodejs,openssl
cp /etc/resolv.conf /etc/hosts "$folder/etc/"
mkdir -p "$folder/srv/cache_ext"

export folder tree
exec unshare --mount --ipc --pid --fork --kill-child bash -euc '
	mount -t proc proc "$folder/proc"
	mount --bind /dev "$folder/dev"
	mount -t tmpfs tmpfs "$folder/dev/shm"
	mount --bind "$tree" "$folder/srv/cache_ext"
	exec env -u folder -u tree LC_ALL=C.UTF-8 chroot "$folder" /srv/cache_ext/test.sh "$@"
' "$0" "$@"
