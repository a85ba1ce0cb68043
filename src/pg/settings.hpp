/*-------------------------------------------------------------------------
 *
 * settings.hpp
 *		The settings (cache_ext.*) as the code reads them.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

namespace cache_ext::pg {

/* Statistics: milliseconds between two folds while there is something to fold. */
extern int fold_interval_ms;

/* Seconds after which the worker verifies a statistic again; 0: never. */
extern int verify_interval_s;

/* Redis: where it is and how long to wait for it. */
extern char *redis_url;           /* empty: see the environment (redis_link.hpp) */
extern char *redis_password_file; /* empty: none */
extern char *redis_tls_ca_file;   /* empty: the system's authorities */
extern char *redis_tls_certificate_file;
extern char *redis_tls_key_file;
extern int redis_tls_verify; /* TlsVerify */
extern int connect_timeout_ms;
extern int command_timeout_ms;
extern int max_connections; /* of the whole server, the workers' not counted against it */
extern int idle_timeout_s;  /* 0: never */

enum TlsVerify
{
	kTlsVerifyFull, /* chain and name */
	kTlsVerifyCa    /* chain alone */
};

/* The cache. */
extern bool cache_enabled; /* off: no reads and no fills; invalidations go on */
extern char *key_prefix;
extern int default_ttl_s;
extern int max_value_size_kb;
extern char *allowed_prefix; /* all keys that this session may name begin so; empty: any */
extern int max_loads;        /* at once, on the whole server; 0: no limit */
extern int load_wait_ms;
extern int memory_size_kb;  /* as the server was started with */
extern int warm_interval_s; /* between warmings by the worker; 0: never */

/* Invalidation: does COMMIT return at once, or when Redis has confirmed? */
enum InvalidationMode
{
	kInvalidationAsync,
	kInvalidationSync
};
extern int invalidation_mode;
extern int invalidation_timeout_ms;

/* Sessions and rate limits. */
enum SessionDurability
{
	kSessionsInRedis, /* where one is configured, else in our table */
	kSessionsInTable
};
extern int session_ttl_s;
extern int session_durability;

/* What a rate limit says while Redis is configured and cannot be asked. */
enum LimitOnFailure
{
	kLimitLocal, /* what the memory of this server knows */
	kLimitAllow,
	kLimitDeny,
	kLimitError
};
extern int rate_limit_on_failure;

/* Of the lines in the log that say what happened: LOG or a DEBUG level. */
extern int log_level;
extern int log_every_s; /* between lines with figures of the cache; 0: none */

/* Grows whenever an address, a password file or their like is assigned: connections compare. */
extern unsigned int redis_settings_generation;

void define_settings();

} /* namespace cache_ext::pg */
