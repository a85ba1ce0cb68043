/*-------------------------------------------------------------------------
 *
 * settings.cpp
 *		Every setting of the extension, grouped by feature.
 *
 * Check hooks refuse what could not work, naming the part and never the
 * content: an address may hold a password.  Nothing is opened or resolved
 * here; the postmaster runs these hooks too.
 *
 *-------------------------------------------------------------------------
 */
#include <climits>
#include <cstring>
#include <new>

#include "core/base/error.hpp"
#include "core/redis/address.hpp"
#include "pg/server.hpp"
#include "pg/settings.hpp"

extern "C" {
#include "access/parallel.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/guc.h"
}

namespace cache_ext::pg {

constexpr int kDefaultFoldIntervalMs = 10;
constexpr int kDefaultConnectTimeoutMs = 1000;
constexpr int kDefaultCommandTimeoutMs = 200;
constexpr int kMaxTimeoutMs = 60 * 1000;
constexpr int kDefaultMaxConnections = 1000;
constexpr int kMaxMaxConnections = 1000000;
constexpr int kDefaultIdleTimeoutS = 300;
constexpr int kMaxIdleTimeoutS = 24 * 3600;
constexpr int kDefaultTtlS = 300;
constexpr int kMaxTtlS = 10 * 365 * 24 * 3600;
constexpr int kDefaultSessionTtlS = 24 * 3600;
constexpr int kDefaultMaxValueSizeKb = 1024;
constexpr int kMaxMaxValueSizeKb = 32 * 1024;
constexpr int kDefaultMemorySizeKb = 64 * 1024;
constexpr int kMaxMemorySizeKb = 1024 * 1024 * 1024;
constexpr int kMaxMaxLoads = 1024;
constexpr int kMaxWarmIntervalS = 24 * 3600;
constexpr int kMaxLogEveryS = 24 * 3600;
constexpr int kDefaultLoadWaitMs = 5000;
constexpr size_t kMaxKeyPrefix = 256;
constexpr int kDefaultInvalidationTimeoutMs = 1000;

int fold_interval_ms = kDefaultFoldIntervalMs;
int verify_interval_s = 0;
char *redis_url = nullptr;
char *redis_password_file = nullptr;
char *redis_tls_ca_file = nullptr;
char *redis_tls_certificate_file = nullptr;
char *redis_tls_key_file = nullptr;
int redis_tls_verify = kTlsVerifyFull;
int connect_timeout_ms = kDefaultConnectTimeoutMs;
int command_timeout_ms = kDefaultCommandTimeoutMs;
int max_connections = kDefaultMaxConnections;
int idle_timeout_s = kDefaultIdleTimeoutS;
bool cache_enabled = true;
char *key_prefix = nullptr;
int default_ttl_s = kDefaultTtlS;
int max_value_size_kb = kDefaultMaxValueSizeKb;
char *allowed_prefix = nullptr;
int max_loads = 0;
int load_wait_ms = kDefaultLoadWaitMs;
int invalidation_mode = kInvalidationAsync;
int invalidation_timeout_ms = kDefaultInvalidationTimeoutMs;
int memory_size_kb = kDefaultMemorySizeKb;
int warm_interval_s = 0;
int session_ttl_s = kDefaultSessionTtlS;
int session_durability = kSessionsInRedis;
int rate_limit_on_failure = kLimitLocal;
int log_level = LOG;
int log_every_s = 0;
unsigned int redis_settings_generation = 1;

static const config_enum_entry kInvalidationModes[] = {
    {"async", kInvalidationAsync, false}, {"sync", kInvalidationSync, false}, {nullptr, 0, false}};

/* Somebody types the setting now, as opposed to a process reading it at its start or at reload. */
static bool
is_typed(GucSource source)
{
	if (!IsTransactionState() || InitializingParallelWorker)
		return false;
	return source == PGC_S_FILE || source == PGC_S_TEST || source == PGC_S_SESSION;
}

/* What is wrong with a Redis address, in fixed buffers: no exception reaches the server. */
struct Complaint
{
	bool wrong;
	bool has_password;
	int sqlstate;
	char message[256];
	char detail[256];
	char hint[256];
};

static void
examine_address(const char *url, Complaint *complaint) noexcept
{
	memset(complaint, 0, sizeof(*complaint));
	try
	{
		complaint->has_password = !redis::parse_address(url).password.empty();
	}
	catch (const Error &error)
	{
		const char *code = error.state().code;

		complaint->wrong = true;
		complaint->sqlstate = MAKE_SQLSTATE(code[0], code[1], code[2], code[3], code[4]);
		strlcpy(complaint->message, error.message().c_str(), sizeof(complaint->message));
		strlcpy(complaint->detail, error.detail().c_str(), sizeof(complaint->detail));
		strlcpy(complaint->hint, error.hint().c_str(), sizeof(complaint->hint));
	}
	catch (...)
	{
		complaint->wrong = true;
		complaint->sqlstate = ERRCODE_OUT_OF_MEMORY;
		strlcpy(complaint->message, "out of memory", sizeof(complaint->message));
	}
}

extern "C" {

static bool
cache_ext_check_redis_url(char **value, void **, GucSource source)
{
	Complaint complaint;

	if (*value == nullptr || **value == '\0')
		return true;

	examine_address(*value, &complaint);
	if (complaint.wrong)
	{
		GUC_check_errcode(complaint.sqlstate);
		/* The whole message is ours: the server's own would quote the address. */
		GUC_check_errmsg("%s", complaint.message);
		if (complaint.detail[0] != '\0')
			GUC_check_errdetail("%s", complaint.detail);
		if (complaint.hint[0] != '\0')
			GUC_check_errhint("%s", complaint.hint);
		return false;
	}
	if (complaint.has_password && is_typed(source))
		ereport(WARNING, (errmsg("the address of Redis contains a password"),
		                  errdetail("The server may log this statement, and shows it in "
		                            "pg_stat_activity."),
		                  errhint("Set cache_ext.redis_password_file instead.")));
	return true;
}

static bool
cache_ext_check_key_prefix(char **value, void **, GucSource)
{
	if (*value != nullptr && strlen(*value) > kMaxKeyPrefix)
	{
		GUC_check_errdetail("The prefix is longer than %zu bytes.", kMaxKeyPrefix);
		return false;
	}
	return true;
}

/*
 * A reload assigns what was there before as well: only another value makes
 * connections old.  The old text itself is not looked at: where a parallel
 * worker takes over its leader's settings, the server has freed it by now.
 */
static void
note_assignment(uint64 *known, const char *value)
{
	uint64 hash = 0;

	if (value != nullptr)
		hash = hash_bytes_extended(reinterpret_cast<const unsigned char *>(value),
		                           static_cast<int>(strlen(value)), 0);
	if (hash != *known)
		++redis_settings_generation;
	*known = hash;
}

static void
cache_ext_assign_redis_url(const char *value, void *)
{
	static uint64 known;

	note_assignment(&known, value);
}

static void
cache_ext_assign_redis_password_file(const char *value, void *)
{
	static uint64 known;

	note_assignment(&known, value);
}

static void
cache_ext_assign_redis_tls_ca_file(const char *value, void *)
{
	static uint64 known;

	note_assignment(&known, value);
}

static void
cache_ext_assign_redis_tls_certificate_file(const char *value, void *)
{
	static uint64 known;

	note_assignment(&known, value);
}

static void
cache_ext_assign_redis_tls_key_file(const char *value, void *)
{
	static uint64 known;

	note_assignment(&known, value);
}

static void
cache_ext_assign_redis_tls_verify(int value, void *)
{
	if (value != redis_tls_verify)
		++redis_settings_generation;
}
}

static const config_enum_entry kTlsVerifyOptions[] = {
    {"full", kTlsVerifyFull, false}, {"ca", kTlsVerifyCa, false}, {nullptr, 0, false}};

static void
define_tls_settings()
{
	DefineCustomStringVariable("cache_ext.redis_tls_ca_file",
	                           "File of the certificate authorities that may vouch for Redis.",
	                           "When empty, the system's. Used for rediss:// addresses.",
	                           &redis_tls_ca_file, "", PGC_SUSET, 0, nullptr,
	                           cache_ext_assign_redis_tls_ca_file, nullptr);
	DefineCustomStringVariable("cache_ext.redis_tls_certificate_file",
	                           "File of the certificate that Redis asks of us, with its chain.",
	                           nullptr, &redis_tls_certificate_file, "", PGC_SUSET, 0, nullptr,
	                           cache_ext_assign_redis_tls_certificate_file, nullptr);
	DefineCustomStringVariable(
	    "cache_ext.redis_tls_key_file", "File of that certificate's private key.",
	    "It must belong to the server's user and be readable by nobody else.", &redis_tls_key_file,
	    "", PGC_SUSET, 0, nullptr, cache_ext_assign_redis_tls_key_file, nullptr);
	DefineCustomEnumVariable("cache_ext.redis_tls_verify",
	                         "What is verified of the certificate of Redis.",
	                         "full: who vouches for it and that it names the host; ca: only who "
	                         "vouches for it.",
	                         &redis_tls_verify, kTlsVerifyFull, kTlsVerifyOptions, PGC_SUSET, 0,
	                         nullptr, cache_ext_assign_redis_tls_verify, nullptr);
}

static void
define_redis_settings()
{
	DefineCustomStringVariable(
	    "cache_ext.redis_url", "Address of Redis: redis://, rediss:// or unix://, empty for none.",
	    "When empty, the server's environment variable REDIS_URL is used, then REDIS_HOST, "
	    "REDIS_PORT and REDIS_PASSWORD.",
	    &redis_url, "", PGC_SUSET, GUC_SUPERUSER_ONLY, cache_ext_check_redis_url,
	    cache_ext_assign_redis_url, nullptr);
	DefineCustomStringVariable(
	    "cache_ext.redis_password_file", "File that holds the password for Redis.",
	    "It must belong to the server's user and be readable by nobody else.", &redis_password_file,
	    "", PGC_SUSET, GUC_SUPERUSER_ONLY, nullptr, cache_ext_assign_redis_password_file, nullptr);
	define_tls_settings();
	DefineCustomIntVariable("cache_ext.connect_timeout",
	                        "Longest time to wait for a connection to Redis.", nullptr,
	                        &connect_timeout_ms, kDefaultConnectTimeoutMs, 1, kMaxTimeoutMs,
	                        PGC_SUSET, GUC_UNIT_MS, nullptr, nullptr, nullptr);
	DefineCustomIntVariable("cache_ext.command_timeout",
	                        "Longest time to wait for Redis to answer one call.", nullptr,
	                        &command_timeout_ms, kDefaultCommandTimeoutMs, 1, kMaxTimeoutMs,
	                        PGC_SUSET, GUC_UNIT_MS, nullptr, nullptr, nullptr);
	DefineCustomIntVariable("cache_ext.max_connections",
	                        "Most connections to Redis that the sessions of this server hold.",
	                        "Background workers have their own. A session beyond it goes on "
	                        "without Redis.",
	                        &max_connections, kDefaultMaxConnections, 1, kMaxMaxConnections,
	                        PGC_SUSET, 0, nullptr, nullptr, nullptr);
	DefineCustomIntVariable("cache_ext.idle_timeout",
	                        "Time after which an unused connection to Redis is closed.",
	                        "Zero keeps it.", &idle_timeout_s, kDefaultIdleTimeoutS, 0,
	                        kMaxIdleTimeoutS, PGC_SUSET, GUC_UNIT_S, nullptr, nullptr, nullptr);
}

static void
define_cache_settings()
{
	DefineCustomBoolVariable("cache_ext.enabled", "Whether the cache is read and filled.",
	                         "Invalidations are sent in any case.", &cache_enabled, true, PGC_SUSET,
	                         0, nullptr, nullptr, nullptr);
	DefineCustomStringVariable(
	    "cache_ext.key_prefix", "What stands before every name that is given to Redis.", nullptr,
	    &key_prefix, "", PGC_SUSET, 0, cache_ext_check_key_prefix, nullptr, nullptr);
	DefineCustomIntVariable("cache_ext.default_ttl", "Life of an entry made without a ttl.",
	                        nullptr, &default_ttl_s, kDefaultTtlS, 1, kMaxTtlS, PGC_SUSET,
	                        GUC_UNIT_S, nullptr, nullptr, nullptr);
	DefineCustomIntVariable("cache_ext.max_value_size",
	                        "Size above which a value is returned and not stored.", nullptr,
	                        &max_value_size_kb, kDefaultMaxValueSizeKb, 1, kMaxMaxValueSizeKb,
	                        PGC_SUSET, GUC_UNIT_KB, nullptr, nullptr, nullptr);
	DefineCustomStringVariable("cache_ext.allowed_prefix",
	                           "What every key must begin with that a session names.",
	                           "cache_grant sets it for a role.", &allowed_prefix, "", PGC_SUSET, 0,
	                           nullptr, nullptr, nullptr);
	DefineCustomIntVariable("cache_ext.max_loads",
	                        "Most queries that the cache runs at once on this server, 0 for any.",
	                        nullptr, &max_loads, 0, 0, kMaxMaxLoads, PGC_SUSET, 0, nullptr, nullptr,
	                        nullptr);
	DefineCustomIntVariable(
	    "cache_ext.load_wait", "Longest time to wait for another session's load of the same entry.",
	    "Also for one of cache_ext.max_loads to end.", &load_wait_ms, kDefaultLoadWaitMs, 1,
	    kMaxTimeoutMs, PGC_SUSET, GUC_UNIT_MS, nullptr, nullptr, nullptr);
	DefineCustomIntVariable(
	    "cache_ext.warm_interval", "Time between two warmings of what loaders name, by the worker.",
	    "0 switches it off. Needs cache_ext in shared_preload_libraries.", &warm_interval_s, 0, 0,
	    kMaxWarmIntervalS, PGC_SUSET, GUC_UNIT_S, nullptr, nullptr, nullptr);
	/* Without preloading it has no effect, and a PGC_POSTMASTER setting could not be defined. */
	DefineCustomIntVariable("cache_ext.memory_size", "Shared memory for cache entries; 0 for none.",
	                        "Needs cache_ext in shared_preload_libraries.", &memory_size_kb,
	                        kDefaultMemorySizeKb, 0, kMaxMemorySizeKb,
	                        process_shared_preload_libraries_in_progress ? PGC_POSTMASTER
	                                                                     : PGC_SIGHUP,
	                        GUC_UNIT_KB, nullptr, nullptr, nullptr);
}

static const config_enum_entry kDurabilities[] = {
    {"redis", kSessionsInRedis, false}, {"table", kSessionsInTable, false}, {nullptr, 0, false}};

static const config_enum_entry kOnFailure[] = {{"local", kLimitLocal, false},
                                               {"allow", kLimitAllow, false},
                                               {"deny", kLimitDeny, false},
                                               {"error", kLimitError, false},
                                               {nullptr, 0, false}};

static void
define_session_settings()
{
	DefineCustomIntVariable("cache_ext.session_ttl",
	                        "Life of a session whose cookie has no end of its own.", nullptr,
	                        &session_ttl_s, kDefaultSessionTtlS, 1, kMaxTtlS, PGC_SUSET, GUC_UNIT_S,
	                        nullptr, nullptr, nullptr);
	DefineCustomEnumVariable(
	    "cache_ext.session_durability", "Where sessions are kept.",
	    "redis: where connect-redis keeps them, as durable as that Redis is, or in a table while "
	    "none is configured; table: always in the table, as durable as this database.",
	    &session_durability, kSessionsInRedis, kDurabilities, PGC_SUSET, 0, nullptr, nullptr,
	    nullptr);
	DefineCustomEnumVariable(
	    "cache_ext.rate_limit_on_failure", "What a rate limit says while Redis cannot be asked.",
	    "local: what this server counts by itself meanwhile; allow; deny; or error.",
	    &rate_limit_on_failure, kLimitLocal, kOnFailure, PGC_SUSET, 0, nullptr, nullptr, nullptr);
}

static const config_enum_entry kLogLevels[] = {{"log", LOG, false},       {"debug1", DEBUG1, false},
                                               {"debug2", DEBUG2, false}, {"debug3", DEBUG3, false},
                                               {"debug4", DEBUG4, false}, {"debug5", DEBUG5, false},
                                               {nullptr, 0, false}};

static void
define_log_settings()
{
	DefineCustomEnumVariable("cache_ext.log_level",
	                         "Level of the lines in the log that say what happened.",
	                         "Connections to Redis made and lost, warming, figures.", &log_level,
	                         LOG, kLogLevels, PGC_SUSET, 0, nullptr, nullptr, nullptr);
	DefineCustomIntVariable(
	    "cache_ext.log_every", "Time between two lines in the log with figures of the cache.",
	    "0 switches it off. Needs cache_ext in shared_preload_libraries.", &log_every_s, 0, 0,
	    kMaxLogEveryS, PGC_SUSET, GUC_UNIT_S, nullptr, nullptr, nullptr);
}

static void
define_statistics_settings()
{
	DefineCustomIntVariable("cache_ext.fold_interval",
	                        "Time between two folds of partial rows while tables are written.",
	                        "At least 100 ms while nobody reads a statistic that has any.",
	                        &fold_interval_ms, kDefaultFoldIntervalMs, 10, 60 * 1000, PGC_SUSET,
	                        GUC_UNIT_MS, nullptr, nullptr, nullptr);
	DefineCustomIntVariable(
	    "cache_ext.verify_interval", "Time after which a statistic that changes is verified again.",
	    "Each verification runs the statistic's query. 0 switches it off.", &verify_interval_s, 0,
	    0, 30 * 24 * 3600, PGC_SUSET, GUC_UNIT_S, nullptr, nullptr, nullptr);
}

static void
define_invalidation_settings()
{
	DefineCustomEnumVariable(
	    "cache_ext.invalidation", "Whether COMMIT waits until Redis has confirmed.",
	    "With sync it returns when Redis has been told of the transaction's invalidations, or with "
	    "a warning after cache_ext.invalidation_timeout.",
	    &invalidation_mode, kInvalidationAsync, kInvalidationModes, PGC_USERSET, 0, nullptr,
	    nullptr, nullptr);
	DefineCustomIntVariable("cache_ext.invalidation_timeout",
	                        "Longest time that COMMIT waits for Redis with invalidation = sync.",
	                        nullptr, &invalidation_timeout_ms, kDefaultInvalidationTimeoutMs, 1,
	                        kMaxTimeoutMs, PGC_USERSET, GUC_UNIT_MS, nullptr, nullptr, nullptr);
}

void
define_settings()
{
	define_statistics_settings();
	define_redis_settings();
	define_cache_settings();
	define_invalidation_settings();
	define_session_settings();
	define_log_settings();
	MarkGUCPrefixReserved("cache_ext");
}

} /* namespace cache_ext::pg */
