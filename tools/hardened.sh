#!/usr/bin/env bash
# Passes the tests against a PostgreSQL that notices what others forgive.
#
#   tools/hardened.sh                     all tests
#   tools/hardened.sh regress isolation   some; the arguments are test.sh's
#
# Builds PostgreSQL from Debian's source package with assertions, clobbering of freed memory and
# poisoning of what is not allocated (tools/hardened/valgrind/memcheck.h), and cache_ext with
# AddressSanitizer and UndefinedBehaviorSanitizer.  The server is built once, into build/hardened.
# PG_MAJOR=17 takes another version that this Debian packages.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

BUILD=$SOURCE_TREE/build/hardened/$PG_MAJOR

# The package's source as an archive: the newest version that the mirrors hold.
download_source() {
	local lists=$BUILD/apt codename version options
	codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
	mkdir -p "$lists/lists/partial"
	{
		echo "deb-src http://deb.debian.org/debian $codename main"
		[ "$codename" = sid ] || echo "deb-src http://deb.debian.org/debian-security $codename-security main"
	} >"$lists/sources.list"
	options=(-q -o "Dir::Etc::sourcelist=$lists/sources.list" -o Dir::Etc::sourceparts=/dev/null
		-o "Dir::State::lists=$lists/lists" -o Dir::Cache::srcpkgcache= -o Dir::Cache::pkgcache=
		-o APT::Sandbox::User=root)
	quietly "$lists/log" apt-get "${options[@]}" update
	cd "$BUILD"
	for version in $(apt-cache "${options[@]}" showsrc "postgresql-$PG_MAJOR" | sed -n 's/^Version: //p' | sort -Vur); do
		if apt-get "${options[@]}" source --download-only "postgresql-$PG_MAJOR=$version" >>"$lists/log" 2>&1; then
			return
		fi
	done
	tail -n 20 "$lists/log" >&2
	fail "the source of postgresql-$PG_MAJOR cannot be downloaded"
}

build_server() {
	local make=(make -s -j"$(nproc)")

	require_packages g++ make bzip2 bison flex perl pkg-config libicu-dev zlib1g-dev
	mkdir -p "$BUILD"
	say "building PostgreSQL $PG_MAJOR with assertions in $BUILD (once, a few minutes)"
	(download_source)
	rm -rf "$BUILD/source"
	mkdir "$BUILD/source"
	tar -C "$BUILD/source" --strip-components=1 -xf "$BUILD"/postgresql-*.orig.tar.*
	cd "$BUILD/source"
	quietly "$BUILD/configure.log" ./configure --prefix="$BUILD/server" --enable-cassert --enable-debug \
		--without-readline --with-icu CFLAGS='-O1 -g' \
		CPPFLAGS="-DUSE_VALGRIND -I$SOURCE_TREE/tools/hardened"
	quietly "$BUILD/make.log" "${make[@]}"
	quietly "$BUILD/make.log" "${make[@]}" install
	quietly "$BUILD/make.log" "${make[@]}" -C src/test/isolation install
	cd "$SOURCE_TREE"
	rm -rf "$BUILD/source"
	touch "$BUILD/complete"
}

CACHE_EXT_WORK=$(mktemp -d)		# for the log of apt-get
trap 'rm -rf "$CACHE_EXT_WORK"' EXIT
[ -e "$BUILD/complete" ] || build_server

SANITIZE="-fsanitize=address,undefined -fno-omit-frame-pointer -O1 -Wno-clobbered" \
	PG_CONFIG=$BUILD/server/bin/pg_config "$SOURCE_TREE/test.sh" "$@"
