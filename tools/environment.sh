# What test.sh, demo.sh and bench/run.sh share; to be sourced.
#
# prepare_environment PACKAGE... installs the Debian packages that are missing (what all three need,
# and the named ones), copies the PostgreSQL installation into a temporary directory, builds cache_ext
# in a scratch copy of this tree and installs it into that copy.  The system's PostgreSQL, its clusters
# and any Redis that runs are neither used nor changed.
#
# The environment chooses the PostgreSQL: PG_MAJOR=17 takes Debian's package of that version,
# PG_CONFIG=/path/to/pg_config any other installation.  SANITIZE=-fsanitize=... builds the extension
# with these flags and loads their library into the servers.
#
# Afterwards these are set and exported:
#
#   CACHE_EXT_WORK    the temporary directory; removed when the calling script ends
#   CACHE_EXT_BIN     the private PostgreSQL's programs
#   CACHE_EXT_TREE    the scratch copy of this tree, built
#   CACHE_EXT_PRELOAD what the servers have to load first, for AddressSanitizer
#   CACHE_EXT_BUILD   a directory for other builds, kept between runs when the clone is writable

# What Debian 12, Debian 13 and later ones package.
default_major() {
	case $(. /etc/os-release 2>/dev/null && echo "${VERSION_ID:-}") in 12) echo 15 ;; 13) echo 17 ;; *) echo 18 ;; esac
}

PG_MAJOR=${PG_MAJOR:-$(default_major)}
FOREIGN_POSTGRES=${PG_CONFIG:+yes}	# not a Debian package of ours to install
SYSTEM_PG_CONFIG=${PG_CONFIG:-/usr/lib/postgresql/$PG_MAJOR/bin/pg_config}
unset PG_CONFIG		# make shall be told the copy's
SANITIZE=${SANITIZE:-}
PYTHON=/usr/bin/python3
SOURCE_TREE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }

fail() {
	printf 'error: %s\n' "$*" >&2
	exit 1
}

# Run a command that is only worth reading when it fails.
quietly() {
	local log=$1
	shift
	if ! "$@" >"$log" 2>&1; then
		tail -n 60 "$log" >&2
		fail "this failed: $*"
	fi
}

is_installed() {
	[ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# Install packages so that no service of theirs starts, stops or restarts, and no cluster is created.
install_packages() {
	local policy=/usr/sbin/policy-rc.d saved_policy= fresh_services=() package
	export DEBIAN_FRONTEND=noninteractive

	for package in "$@"; do
		case $package in redis-server | pgbouncer) fresh_services+=("$package") ;; esac
	done
	if [ -z "$FOREIGN_POSTGRES" ] && ! is_installed "postgresql-$PG_MAJOR"; then
		fresh_services+=(postgresql)
	fi

	if [ -e "$policy" ]; then
		saved_policy=$(mktemp)
		cp -p "$policy" "$saved_policy"
	fi
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
	restore_packaging() {
		if [ -n "$saved_policy" ]; then mv -f "$saved_policy" "$policy"; else rm -f "$policy"; fi
		if [ -e /etc/postgresql-common/createcluster.conf.cache_ext ]; then
			mv -f /etc/postgresql-common/createcluster.conf.cache_ext \
				/etc/postgresql-common/createcluster.conf
		fi
	}
	trap 'restore_packaging; exit 130' INT TERM

	local ok=yes
	apt-get update -q >"$CACHE_EXT_WORK/apt.log" 2>&1 || true
	if [ -z "$FOREIGN_POSTGRES" ] && ! is_installed "postgresql-$PG_MAJOR"; then
		apt-get install -q -y --no-install-recommends postgresql-common >>"$CACHE_EXT_WORK/apt.log" 2>&1 || ok=no
		local conf=/etc/postgresql-common/createcluster.conf
		if [ $ok = yes ]; then
			[ -e $conf ] || : >$conf
			cp -p $conf $conf.cache_ext
			printf 'create_main_cluster = false\n' >$conf
		fi
	fi
	if [ $ok = yes ]; then
		apt-get install -q -y --no-install-recommends "$@" >>"$CACHE_EXT_WORK/apt.log" 2>&1 || ok=no
	fi
	restore_packaging
	trap 'exit 130' INT TERM
	if [ $ok = no ]; then
		tail -n 40 "$CACHE_EXT_WORK/apt.log" >&2
		fail "apt-get could not install: $*"
	fi
	# Services that came with this installation shall not start with the machine either.
	for package in "${fresh_services[@]}"; do
		update-rc.d "$package" disable >/dev/null 2>&1 || true
		if [ -d /run/systemd/system ]; then
			systemctl disable --quiet "$package" 2>/dev/null || true
		fi
	done
}

require_packages() {
	local missing=() package
	command -v dpkg-query >/dev/null || fail "this script needs Debian or a relative of it; README.md says how to build by hand"
	for package in "$@"; do
		is_installed "$package" || missing+=("$package")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	[ "$(id -u)" = 0 ] || fail "packages are missing; run as root once, or: apt-get install ${missing[*]}"
	say "installing Debian packages: ${missing[*]}"
	say "(no service is started and no database cluster is created by this)"
	install_packages "${missing[@]}"
}

# The servers run as this user: initdb refuses root.
server_user() {
	if [ "$(id -u)" != 0 ]; then id -un; elif id postgres >/dev/null 2>&1; then echo postgres; else echo nobody; fi
}

# End what a killed test may have left behind, by process id, then remove the directory.
remove_workspace() {
	local file pid
	set +e
	[ -n "${CACHE_EXT_WORK:-}" ] || return 0
	while IFS= read -r file; do
		pid=$(head -n 1 "$file" 2>/dev/null)
		case $pid in '' | *[!0-9]*) continue ;; esac
		case $file in
		*/postmaster.pid) kill -QUIT "$pid" 2>/dev/null ;;
		*) kill -KILL "$pid" 2>/dev/null ;;
		esac
	done < <(find "$CACHE_EXT_WORK" -maxdepth 4 \( -name postmaster.pid -o -name redis.pid \) 2>/dev/null)
	rm -rf "$CACHE_EXT_WORK" 2>/dev/null || { sleep 1; rm -rf "$CACHE_EXT_WORK"; }
}

# PostgreSQL finds its files relative to its programs, so a copy is an installation of its own.
copy_postgres() {
	local prefix=$CACHE_EXT_WORK/postgres part directory
	for part in bindir pkglibdir sharedir pkgincludedir; do
		directory=$("$SYSTEM_PG_CONFIG" "--$part")
		mkdir -p "$prefix$directory"
		cp -a "$directory/." "$prefix$directory/"
	done
	CACHE_EXT_BIN=$prefix$("$SYSTEM_PG_CONFIG" --bindir)
	export CACHE_EXT_BIN
}

# Objects of the last run move into a fresh copy of the sources, so make repeats only what changed.
copy_tree() {
	local tree=$CACHE_EXT_BUILD/tree file
	rm -rf "$tree.new"
	mkdir -p "$tree.new"
	tar -C "$SOURCE_TREE" --exclude=./.git --exclude=./build --exclude='*.o' --exclude='*.d' --exclude='*.so' \
		--exclude=./results --exclude=./output_iso --exclude=__pycache__ -cf - . | tar -C "$tree.new" -xf -
	if [ -d "$tree" ]; then
		(cd "$tree" && find . -name '*.o' -print) | while IFS= read -r file; do
			if [ -e "$tree.new/${file%.o}.cpp" ] && [ -e "$tree/${file%.o}.d" ]; then
				mv "$tree/$file" "$tree/${file%.o}.d" "$(dirname "$tree.new/$file")/"
			fi
		done
		rm -rf "$tree"
	fi
	mv "$tree.new" "$tree"
	export CACHE_EXT_TREE=$tree
}

build_extension() {
	local make=(make --no-print-directory -C "$CACHE_EXT_TREE" PG_CONFIG="$CACHE_EXT_BIN/pg_config" SANITIZE="$SANITIZE")
	quietly "$CACHE_EXT_WORK/build.log" "${make[@]}" -j"$(nproc)"
	quietly "$CACHE_EXT_WORK/install.log" "${make[@]}" install
}

prepare_environment() {
	CACHE_EXT_WORK=$(mktemp -d /tmp/cache_ext.XXXXXX)
	chmod 755 "$CACHE_EXT_WORK"
	export CACHE_EXT_WORK
	trap remove_workspace EXIT
	trap 'exit 130' INT TERM

	local server_packages=()
	[ -n "$FOREIGN_POSTGRES" ] || server_packages=("postgresql-$PG_MAJOR" "postgresql-server-dev-$PG_MAJOR")
	require_packages "${server_packages[@]}" redis-server libhiredis-dev libssl-dev g++ make python3 python3-psycopg2 "$@"
	[ -x "$SYSTEM_PG_CONFIG" ] || fail "there is no $SYSTEM_PG_CONFIG"

	# Objects fit one server and one set of flags.
	CACHE_EXT_BUILD=$SOURCE_TREE/build/$({ "$SYSTEM_PG_CONFIG" --version --configure; echo "$SANITIZE"; } | cksum | cut -d' ' -f1)
	if ! mkdir -p "$CACHE_EXT_BUILD/probe" 2>/dev/null || ! rmdir "$CACHE_EXT_BUILD/probe" 2>/dev/null; then
		CACHE_EXT_BUILD=$CACHE_EXT_WORK/build
		mkdir -p "$CACHE_EXT_BUILD"
	fi
	export CACHE_EXT_BUILD
	# One run at a time may build; the servers of several runs do not meet.
	exec 9>"$CACHE_EXT_BUILD/lock"
	flock 9

	say "building cache_ext against a private copy of $("$SYSTEM_PG_CONFIG" --version) in $CACHE_EXT_WORK"
	copy_postgres
	copy_tree
	build_extension
	CACHE_EXT_SERVER_USER=$(server_user)
	export CACHE_EXT_SERVER_USER
	case $SANITIZE in
	*address*) export CACHE_EXT_PRELOAD="$(${CXX:-g++} -print-file-name=libasan.so)" ;;
	esac
	unset PGHOST PGPORT PGUSER PGDATABASE PGPASSWORD PGSERVICE PGOPTIONS PGDATA REDIS_URL REDIS_HOST REDIS_PORT REDIS_PASSWORD
}
