/*-------------------------------------------------------------------------
 *
 * objects.cpp
 *		See objects.hpp.
 *
 * The verdict is kept until the relcache says that our table `statistic` has
 * gone or changed, as it has with every update of the objects (begin_update).
 * So are the numbers of tables, each until the relcache says so of it.
 *
 *-------------------------------------------------------------------------
 */
#include "core/base/version.hpp"

#include "pg/objects.hpp"

extern "C" {
#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
}

namespace cache_ext::pg {

constexpr const char *kSchema = "cache_ext_internal";
constexpr const char *kExtension = "cache_ext";

/* ---- the verdict ---- */

static Oid judged = InvalidOid; /* our table `statistic`, when the verdict holds */
static Fit verdict = Fit::kFits;

/* ---- tables by name ---- */

constexpr int kKeptTables = 16;

struct KeptTable
{
	const char *name;
	Oid table; /* InvalidOid: to be looked up */
};

static KeptTable kept[kKeptTables];

static void
forget_verdict(Datum, Oid relation)
{
	bool all = !OidIsValid(relation) || relation == judged;

	if (all)
		judged = InvalidOid;
	for (KeptTable &one : kept)
		if (all || one.table == relation)
			one.table = InvalidOid;
}

void
register_objects()
{
	CacheRegisterRelcacheCallback(forget_verdict, (Datum) 0);
}

/* The version of the objects; NULL when the extension is being made or dropped. */
static char *
objects_version()
{
	Relation catalog = table_open(ExtensionRelationId, AccessShareLock);
	char *version = nullptr;
	ScanKeyData key;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
	            CStringGetDatum(kExtension));
	SysScanDesc scan = systable_beginscan(catalog, ExtensionNameIndexId, true, nullptr, 1, &key);
	HeapTuple tuple = systable_getnext(scan);

	if (HeapTupleIsValid(tuple))
	{
		bool null;
		Datum value =
		    heap_getattr(tuple, Anum_pg_extension_extversion, RelationGetDescr(catalog), &null);

		version = TextDatumGetCString(value);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return version;
}

static Fit
judge(Oid schema)
{
	if (OidIsValid(judged))
		return verdict;

	char *version = objects_version();

	if (version == nullptr)
		return Fit::kFits;
	verdict = fit_of_objects(version, oldest_objects(), library_version());
	judged = get_relname_relid("statistic", schema);
	pfree(version);
	return verdict;
}

[[noreturn]] static void
refuse(Fit fit)
{
	const char *library = library_version().data();

	ereport(ERROR,
	        (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
	         errmsg("the objects of extension \"%s\" do not fit its library", kExtension),
	         errdetail("The objects in this database are of version %s, the library is of %s.",
	                   objects_version(), library),
	         fit == Fit::kObjectsTooOld
	             ? errhint("Run ALTER EXTENSION %s UPDATE.", kExtension)
	             : errhint("Install the library of that version, then reconnect, or restart the "
	                       "server where shared_preload_libraries loads it.")));
}

Oid
internal_schema()
{
	Oid schema = get_namespace_oid(kSchema, true);

	if (!OidIsValid(schema))
		return InvalidOid;

	Fit fit = judge(schema);

	if (fit != Fit::kFits)
		refuse(fit);
	return schema;
}

static KeptTable *
kept_table(const char *name)
{
	for (KeptTable &one : kept)
	{
		if (one.name == nullptr)
			one.name = name;
		if (one.name == name)
			return &one;
	}
	return nullptr;
}

Oid
internal_table(const char *name)
{
	KeptTable *one = kept_table(name);

	if (one != nullptr && OidIsValid(one->table) && OidIsValid(judged))
		return one->table;

	Oid schema = internal_schema();
	Oid table = OidIsValid(schema) ? get_relname_relid(name, schema) : InvalidOid;

	if (one != nullptr)
		one->table = table;
	return table;
}

bool
objects_fit()
{
	Oid schema = get_namespace_oid(kSchema, true);

	return !OidIsValid(schema) || judge(schema) == Fit::kFits;
}

void
judge_objects_anew()
{
	Oid schema = get_namespace_oid(kSchema, true);
	Oid table = OidIsValid(schema) ? get_relname_relid("statistic", schema) : InvalidOid;

	judged = InvalidOid;
	if (OidIsValid(table))
		CacheInvalidateRelcacheByRelid(table);
}

bool
runs_own_script()
{
	return creating_extension && CurrentExtensionObject == get_extension_oid(kExtension, true);
}

} /* namespace cache_ext::pg */
