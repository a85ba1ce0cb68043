/*-------------------------------------------------------------------------
 *
 * query_plans.cpp
 *		Plans that the backend keeps; see query_plans.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/cache/query_plans.hpp"

extern "C" {
#include "catalog/pg_type.h"
#include "nodes/parsenodes.h"
#include "parser/analyze.h"
#include "tcop/tcopprot.h"
#include "utils/hsearch.h"
}

namespace cache_ext::cache {

constexpr int kMaxPlans = 64;
constexpr size_t kMaxKeptQuery = 64 * 1024;

static HTAB *plans = nullptr;
static uint64 uses = 0;

static void
make_plan_table()
{
	HASHCTL control;

	memset(&control, 0, sizeof(control));
	control.keysize = sizeof(Digest);
	control.entrysize = sizeof(KeptPlan);
	plans = hash_create("cache_ext query plans", kMaxPlans, &control, HASH_ELEM | HASH_BLOBS);
}

static void
forget_plan(KeptPlan *kept)
{
	Digest key = kept->key;

	SPI_freeplan(kept->plan);
	pfree(kept->text);
	hash_search(plans, &key, HASH_REMOVE, nullptr);
}

/* Make room by dropping the plan not used for the longest time; false when all are in use. */
static bool
make_room()
{
	HASH_SEQ_STATUS scan;
	KeptPlan *oldest = nullptr;

	if (hash_get_num_entries(plans) < kMaxPlans)
		return true;
	hash_seq_init(&scan, plans);
	while (auto *each = static_cast<KeptPlan *>(hash_seq_search(&scan)))
		if (each->users == 0 && (oldest == nullptr || each->last_use < oldest->last_use))
			oldest = each;
	if (oldest != nullptr)
		forget_plan(oldest);
	return oldest != nullptr;
}

/* The types of $1, $2, ... as the query uses them; text for what it does not use. */
static Oid *
infer_types(const QueryCall &call)
{
	List *statements = pg_parse_query(call.text);
	Oid *types = nullptr;
	int count = 0;

	if (list_length(statements) == 1)
		(void) parse_analyze_varparams(linitial_node(RawStmt, statements), call.text, &types,
		                               &count, nullptr);
	if (count > call.argument_count)
		ereport(ERROR,
		        (errcode(ERRCODE_UNDEFINED_PARAMETER), errmsg("there is no parameter $%d", count),
		         errdetail("The query has %d arguments.", call.argument_count)));

	auto *all = static_cast<Oid *>(palloc(sizeof(Oid) * Max(call.argument_count, 1)));

	for (int i = 0; i < call.argument_count; ++i)
		all[i] = i < count && OidIsValid(types[i]) && types[i] != UNKNOWNOID ? types[i] : TEXTOID;
	return all;
}

SPIPlanPtr
prepare_query(const QueryCall &call)
{
	const Oid *types =
	    call.types != nullptr || call.argument_count == 0 ? call.types : infer_types(call);
	SPIPlanPtr plan = SPI_prepare_cursor(call.text, call.argument_count, const_cast<Oid *>(types),
	                                     CURSOR_OPT_PARALLEL_OK);

	if (plan == nullptr)
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
		                errmsg("could not prepare the query of a cache entry: %s",
		                       SPI_result_code_string(SPI_result))));
	return plan;
}

static Digest
plan_key(const QueryCall &call, size_t length)
{
	Digester digester;

	digester.add(std::string_view(call.text, length));
	digester.add(static_cast<uint64>(call.argument_count));
	for (int i = 0; call.types != nullptr && i < call.argument_count; ++i)
		digester.add(uint64{call.types[i]});
	return digester.finish();
}

KeptPlan *
find_or_keep_plan(const QueryCall &call)
{
	size_t length = strlen(call.text);
	Digest key = plan_key(call, length);
	KeptPlan *kept;

	if (length > kMaxKeptQuery)
		return nullptr;
	if (plans == nullptr)
		make_plan_table();

	kept = static_cast<KeptPlan *>(hash_search(plans, &key, HASH_FIND, nullptr));
	if (kept != nullptr && strcmp(kept->text, call.text) == 0)
	{
		kept->last_use = ++uses;
		return kept;
	}
	if (kept != nullptr || !make_room())
		return nullptr;

	SPIPlanPtr plan = prepare_query(call);
	char *text = MemoryContextStrdup(TopMemoryContext, call.text);

	if (SPI_keepplan(plan) != 0)
		elog(ERROR, "could not keep the plan of a cache entry's query");
	kept = static_cast<KeptPlan *>(hash_search(plans, &key, HASH_ENTER, nullptr));
	kept->text = text;
	kept->plan = plan;
	kept->users = 0;
	kept->last_use = ++uses;
	return kept;
}

} /* namespace cache_ext::cache */
