"""Statistics are exact in every snapshot, whatever is written and however it ends."""

import random

import queries
import workload
from harness import Failure, amid_writers, expect, wait_for, with_shop

SECONDS = 40


def storm(options, directory, preload):
    seed = options.seed if options.seed is not None else random.SystemRandom().getrandbits(32)
    seconds = (options.seconds or SECONDS) / 2

    def body(server, _):
        with workload.Storm(server, "shop", seed) as run:
            run.run_for(seconds)
        workload.settle(server, "shop")
        missing = [name for name in workload.WRITE_NAMES if name not in run.counts]
        print(f"        seed {seed}: {run.transactions} transactions, {sum(run.counts.values())} writes,"
              f" {run.comparisons} comparisons of every statistic")
        expect(run.transactions > 5 * seconds, f"only {run.transactions} transactions")
        expect(run.comparisons > seconds / 2, f"only {run.comparisons} comparisons")
        if sum(run.counts.values()) > 30 * len(workload.WRITE_NAMES):
            expect(not missing, f"these writes never succeeded: {missing}")

    try:
        with_shop(directory, body, preload=preload, redis=False, setup=workload.create)
    except Failure as failure:
        raise Failure(f"{failure}\n(repeat with --seed {seed})") from failure


def every_way_to_write_leaves_statistics_exact(options):
    storm(options, "storm_preloaded", preload=True)


def the_same_holds_without_shared_preload_libraries(options):
    storm(options, "storm_plain", preload=False)


def queries_of_all_forms_equal_what_is_kept_of_them(options):
    seed = options.seed if options.seed is not None else random.SystemRandom().getrandbits(32)

    def body(server, _):
        fuzz = queries.Fuzz(server, "shop", seed)
        fuzz.run_for((options.seconds or SECONDS) / 2)
        print(f"        seed {seed}: {fuzz.created} queries, {fuzz.comparisons} comparisons, {sum(fuzz.refused.values())} refused")
        expect(fuzz.created >= fuzz.KEPT and fuzz.comparisons > 0 and fuzz.created > sum(fuzz.refused.values()),
               f"only {fuzz.created} queries were kept: {fuzz.refused}")

    try:
        with_shop("queries", body, redis=False)
    except Failure as failure:
        raise Failure(f"{failure}\n(repeat with --seed {seed})") from failure


def a_held_snapshot_leaves_small_tables_behind(_):
    """Readers look at all of the log, and at all of totals without groups: neither must stay large, not even amid writers."""
    def body(server, _):
        large = ("SELECT count(*) FROM pg_class WHERE relnamespace = 'cache_ext_internal'::regnamespace AND relkind = 'r'"
                 " AND pg_relation_size(oid) > 64 * 8192")
        with server.session("shop") as db, server.session("shop") as holder:
            db.run("CREATE TABLE sale (id serial, amount integer)")
            db.run("SELECT statistics_create('sales', 'SELECT count(*) AS n, sum(amount) AS s FROM sale')")
            holder.run("BEGIN ISOLATION LEVEL REPEATABLE READ")
            before = holder.rows("SELECT * FROM sales")
            db.run("DO $$ BEGIN FOR i IN 1..20000 LOOP INSERT INTO sale (amount) VALUES (i); COMMIT; END LOOP; END $$")
            wait_for("all is folded", lambda: db.value("SELECT statistics_fold()") == 0, 30)
            expect(db.value(large) > 0, "the tables are too small for this test")
            expect(holder.rows("SELECT * FROM sales") == before, "the old snapshot is answered otherwise")

            with amid_writers(server, "INSERT INTO sale (amount) VALUES (1)"):
                holder.run("COMMIT")
                wait_for("the tables are small again", lambda: db.value(large) == 0, 30)
            expect(db.rows("SELECT * FROM sales") == db.rows("SELECT count(*), sum(amount) FROM sale"), "the statistic differs")

    with_shop("held", body, redis=False)


TESTS = [a_held_snapshot_leaves_small_tables_behind, queries_of_all_forms_equal_what_is_kept_of_them, every_way_to_write_leaves_statistics_exact, the_same_holds_without_shared_preload_libraries]
