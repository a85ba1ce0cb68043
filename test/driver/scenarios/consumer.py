"""The example for Node: an in-process cache that forgets what the database invalidates."""

import json
import os
import queue
import shutil
import subprocess
import threading

from harness import expect, wait_for
from scenarios.delivery import drained, with_servers

EXAMPLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "examples", "node")

# Reads commands from standard input, one a line, and answers each with a line of JSON.
PROGRAM = """
const { LocalCache } = require(process.argv[1] + '/local_cache.js');
const cache = new LocalCache({ path: process.argv[2], database: 'shop' });
const why = [];
let loads = 0, hold = null;
cache.on('clear', (reason) => why.push(reason));
const commands = {
	ready: () => cache.ready(),
	get: (key, ...tags) => cache.get(key, tags, async () => ++loads),
	slow: (key) => { cache.get(key, [], () => new Promise((done) => { hold = done; })); },
	answer: async () => { hold('late'); await null; await null; },
	has: (key) => cache.values.has(key),
	why: () => why.splice(0),
	cut: () => { cache.socket.destroy(); },
};
require('node:readline').createInterface({ input: process.stdin }).on('line', async (line) => {
	const [name, ...words] = JSON.parse(line);
	console.log(JSON.stringify({ answer: await commands[name](...words) }));
});
"""


class Consumer:
    def __init__(self, redis):
        self.process = subprocess.Popen(
            [shutil.which("node") or shutil.which("nodejs"), "-e", PROGRAM, EXAMPLE, redis.path],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.lines = queue.Queue()
        threading.Thread(target=lambda: [self.lines.put(line) for line in self.process.stdout], daemon=True).start()

    def __call__(self, *command):
        self.process.stdin.write(json.dumps(command) + "\n")
        return json.loads(self.lines.get(timeout=20)).get("answer")

    def close(self):
        self.process.kill()
        self.process.wait()


def the_example_forgets_what_is_invalidated_and_everything_after_a_gap(_):
    expect(shutil.which("node") or shutil.which("nodejs"), "there is no node")

    def body(_, redis, db):
        consumer = Consumer(redis)
        try:
            consumer("ready")
            db.run("SELECT cache_invalidate('the:first')")      # from here on the numbers are known
            drained(db)

            # keys, tags and patterns, and nothing else
            first = consumer("get", "a:7", "v:7")
            expect(consumer("get", "a:7", "v:7") == first, "a value was not kept")
            consumer("get", "other", "o")
            consumer("get", "listed", "v:7")
            consumer("get", "p:1:x")
            db.run("BEGIN; INSERT INTO orders VALUES (8, 7); ROLLBACK")
            expect(consumer("get", "a:7", "v:7") == first, "a rollback was told")
            db.run("INSERT INTO orders VALUES (1, 7)")
            wait_for("key and tag are forgotten", lambda: not consumer("has", "a:7") and not consumer("has", "listed"))
            db.run("SELECT cache_invalidate_pattern('p:?:*')")
            wait_for("the pattern is forgotten", lambda: not consumer("has", "p:1:x"))
            expect(consumer("has", "other"), "something else was forgotten")
            consumer("why")

            # asked before, answered after an invalidation: not kept
            consumer("get", "seen")
            consumer("slow", "a:7")
            db.run("UPDATE orders SET note = 'x'")
            db.run("SELECT cache_invalidate('seen')")
            wait_for("the event", lambda: not consumer("has", "seen"))
            consumer("answer")
            expect(not consumer("has", "a:7"), "a late answer was kept")

            # another database's events are not ours; a number that comes twice hides what came between
            consumer("get", "probe")
            event = {"v": 1, "epoch": db.value("SELECT epoch FROM invalidation_status"), "tags": [], "patterns": [],
                     "all": False}
            drained(db)
            number = db.value("SELECT seq FROM cache_ext_internal.delivery")
            for database, seq, key in (("elsewhere", 1, "other"), ("shop", number + 1, "probe")):
                redis.ask("PUBLISH", "invalidate", json.dumps({**event, "database": database, "seq": seq, "keys": [key]}))
            wait_for("the event", lambda: not consumer("has", "probe"))
            expect(consumer("has", "other"), "another database's event was taken")
            db.run("SELECT cache_invalidate('nothing')")
            wait_for("a gap forgets everything", lambda: not consumer("has", "other"))
            expect("gap" in consumer("why"), "no word of the gap")

            # TRUNCATE, a lost connection
            consumer("get", "other")
            db.run("TRUNCATE orders")
            wait_for("all is forgotten", lambda: not consumer("has", "other"))
            wait_for("it is subscribed", lambda: consumer("get", "other") and consumer("has", "other"))
            consumer("cut")
            wait_for("a lost connection forgets everything", lambda: "connection lost" in consumer("why"))
            consumer("ready")
            wait_for("it keeps again", lambda: consumer("get", "again") and consumer("has", "again"))
        finally:
            consumer.close()

    with_servers("consumer", body)


TESTS = [
    the_example_forgets_what_is_invalidated_and_everything_after_a_gap,
]
