# What other_redis.sh and other_postgresql.sh share; to be sourced.
#
# unpack_debian SUITE FOLDER PACKAGES installs a minimal Debian with these packages (separated by commas)
# into a folder, once, as root and from the network.  Nothing of it is started.

tree=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

fail() {
	printf 'error: %s\n' "$*" >&2
	exit 1
}

unpack_debian() {
	local suite=$1 folder=$2 packages=$3 mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}

	[ -e "$folder/complete" ] && return
	[ "$(id -u)" = 0 ] || fail "unpacking needs root, once"
	command -v debootstrap >/dev/null || fail "the package debootstrap is missing"
	mkdir -p "$folder"
	debootstrap --variant=minbase --include="$packages" "$suite" "$folder" "$mirror" \
		>"$folder.log" 2>&1 || fail "debootstrap failed; see $folder.log"
	chmod 755 "$folder"
	touch "$folder/complete"
}
