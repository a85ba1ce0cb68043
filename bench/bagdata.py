"""Realistic data for the bag-tracking application's tables, in the proportions of its production.

Nine bags in ten are children, eight children in nine are linked, there are somewhat more scans than
bags, one bill for ninety bags, and two hundred users of whom a few do most of the scanning.
"""

import sys
import time

AREAS = ["Ahmedabad", "Bengaluru", "Chennai", "Delhi", "Hyderabad", "Jaipur", "Kolkata", "Lucknow",
         "Mumbai", "Nagpur", "Pune", "Surat"]
USERS = 200
BATCH = 20000


class Progress:
    """A bar that redraws itself on a terminal and prints a line a tenth elsewhere."""

    def __init__(self, what, total):
        self.what = what
        self.total = max(total, 1)
        self.done = 0
        self.started = time.monotonic()
        self.shown = -1

    def add(self, amount):
        self.done += amount
        share = min(self.done / self.total, 1.0)
        step = int(share * (100 if sys.stdout.isatty() else 4))
        if step == self.shown:
            return
        self.shown = step
        bar = "█" * int(share * 30) + "·" * (30 - int(share * 30))
        text = f"  {self.what:<28} {bar} {share * 100:3.0f} %  {time.monotonic() - self.started:5.1f} s"
        if sys.stdout.isatty():
            print("\r" + text, end="\n" if share >= 1 else "", flush=True)
        elif share >= 1:
            print(text, flush=True)


def fill(db, bags, show=True):
    """Fill the application's tables in the session's database."""
    parents = max(bags // 10, 1)
    children = max(bags - parents, 1)
    links = children * 8 // 9
    scans = bags * 10 // 9
    bills = max(bags // 90, 5)
    areas = "ARRAY[" + ",".join(f"'{area}'" for area in AREAS) + "]"
    db.run("SET synchronous_commit = off; SELECT setseed(0.42)")
    progress = Progress("filling the tables", parents + children + links + scans) if show else None

    db.run(f"INSERT INTO \"user\" (username, role) SELECT 'user' || i, CASE WHEN i <= 3 THEN 'admin'"
           f" WHEN i <= 20 THEN 'biller' ELSE 'dispatcher' END FROM generate_series(1, {USERS}) i")

    def batches(total, sql):
        for low in range(1, total + 1, BATCH):
            high = min(low + BATCH - 1, total)
            db.run(sql.format(low=low, high=high))
            if progress:
                progress.add(high - low + 1)

    batches(parents, f"""INSERT INTO bag (id, qr_id, type, name, child_count, user_id, dispatch_area, status, weight_kg, created_at)
        SELECT i, 'SB' || lpad(i::text, 7, '0'), 'parent', 'Parent bag ' || i, 9, 1 + i % {USERS},
               ({areas})[1 + i * 7 % {len(AREAS)}], CASE WHEN i % 3 = 0 THEN 'pending' ELSE 'completed' END,
               20 + random() * 15, now() - random() * interval '400 days'
          FROM generate_series({{low}}, {{high}}) i""")
    batches(children, f"""INSERT INTO bag (id, qr_id, type, name, parent_id, user_id, dispatch_area, status, weight_kg, created_at)
        SELECT {parents} + i, 'CB' || lpad(i::text, 8, '0'), 'child', 'Child bag ' || i, 1 + i % {parents}, 1 + i % {USERS},
               ({areas})[1 + i * 5 % {len(AREAS)}], 'pending', round((random() * 4)::numeric, 3)::float8,
               now() - random() * interval '400 days'
          FROM generate_series({{low}}, {{high}}) i""")
    batches(links, f"""INSERT INTO link (parent_bag_id, child_bag_id)
        SELECT 1 + i % {parents}, {parents} + i FROM generate_series({{low}}, {{high}}) i""")
    # floor(n * random()^2): a few users do most of the scanning.
    batches(scans, f"""INSERT INTO scan ("timestamp", parent_bag_id, child_bag_id, user_id)
        SELECT now() - (1 + {scans} - i) * interval '10 seconds',
               CASE WHEN i % 10 = 0 THEN 1 + i % {parents} END,
               CASE WHEN i % 10 <> 0 THEN {parents} + 1 + (i * 7919::bigint) % {children} END,
               1 + floor({USERS} * random() * random())::integer
          FROM generate_series({{low}}, {{high}}) i""")
    db.run(f"""INSERT INTO bill (bill_id, description, parent_bag_count, total_weight_kg, total_child_bags, status, created_by_id)
        SELECT 'BILL-' || lpad(i::text, 6, '0'), 'Shipment ' || i, 1 + i % 5, 100 + random() * 400, 9 * (1 + i % 5),
               (ARRAY['new', 'processing', 'completed'])[1 + i % 3], 1 + i % {USERS}
          FROM generate_series(1, {bills}) i;
        INSERT INTO bill_bag (bill_id, bag_id) SELECT i, 1 + i % {parents} FROM generate_series(1, {bills}) i""")
    db.run("SELECT setval('bag_id_seq', (SELECT max(id) FROM bag))")
    db.run("RESET synchronous_commit")
    for table in ('"user"', "bag", "link", "scan", "bill", "bill_bag"):
        db.run(f"VACUUM (ANALYZE) {table}")


# What the dashboard ran before: the queries that statistics_cache replaces, by column.
DASHBOARD = {
    "total_bags": "SELECT count(*) FROM bag",
    "parent_bags": "SELECT count(*) FROM bag WHERE type = 'parent'",
    "child_bags": "SELECT count(*) FROM bag WHERE type = 'child'",
    "unlinked_children": "SELECT count(*) FROM bag b WHERE type = 'child'"
                         " AND NOT EXISTS (SELECT 1 FROM link l WHERE l.child_bag_id = b.id)",
    "total_scans": "SELECT count(*) FROM scan",
    "total_bills": "SELECT count(*) FROM bill",
    "total_users": 'SELECT count(*) FROM "user"',
}
