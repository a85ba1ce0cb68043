"""Runs the four levels of tests and ends with the line 'N passed, N failed'.

Started by test.sh, which has built the extension and says where in the environment.
"""

import argparse
import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(HERE, "driver"))

import harness  # noqa: E402  (the path above comes first)

LEVELS = ("unit", "regress", "isolation", "driver")


class Tally:
    def __init__(self):
        self.passed = 0
        self.failed = []

    def note(self, level, name, ok, seconds, detail=""):
        mark = "ok    " if ok else "FAILED"
        print(f"{mark}  {level:<10} {name}  ({seconds:.1f} s)", flush=True)
        if detail and not ok:
            print("        " + detail.strip().replace("\n", "\n        "), flush=True)
        if ok:
            self.passed += 1
        else:
            self.failed.append(f"{level} {name}")


def headline(text):
    print(f"\033[1m==>\033[0m {text}", flush=True)


def run(arguments, **options):
    return subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace", **options)


# ---------------------------------------------------------------------------
# unit: GoogleTest through ctest, with AddressSanitizer and UndefinedBehaviorSanitizer
# ---------------------------------------------------------------------------

def run_unit(tally, _):
    headline("unit: the core, without PostgreSQL, under AddressSanitizer and UBSan")
    build = os.path.join(os.environ["CACHE_EXT_BUILD"], "unit")
    started = time.monotonic()
    for command in (
            ["cmake", "-S", os.environ["CACHE_EXT_TREE"], "-B", build, "-DCACHE_EXT_SANITIZE=ON"],
            ["cmake", "--build", build, "-j", str(os.cpu_count())]):
        result = run(command)
        if result.returncode != 0:
            tally.note("unit", "builds", False, time.monotonic() - started, result.stdout[-6000:])
            return
    tally.note("unit", "builds without PostgreSQL's headers", True, time.monotonic() - started)
    result = run(["ctest", "--test-dir", build, "--output-on-failure", "-j", str(os.cpu_count())])
    line = re.compile(r"Test +#\d+: (\S+) \.*\s*(\*\*\*)?(\S.*?)\s+([\d.]+) sec")
    seen = 0
    for match in line.finditer(result.stdout):
        seen += 1
        tally.note("unit", match[1], match[3] == "Passed", float(match[4]))
    if result.returncode != 0:
        print(result.stdout[-8000:])
        if not tally.failed:
            tally.note("unit", "ctest", False, 0)
    elif seen == 0:
        tally.note("unit", "finds its tests", False, 0, result.stdout)


# ---------------------------------------------------------------------------
# regress and isolation: make installcheck against a private server
# ---------------------------------------------------------------------------

def installcheck(tally, level, variables, diffs):
    tree = os.environ["CACHE_EXT_TREE"]
    redis = harness.Redis(harness.work(level + "_redis")).start()
    server = harness.Postgres(harness.work(level), {
        "log_min_messages": "warning",
        "cache_ext.redis_url": f"'{redis.url}'"})       # the tests do not depend on it
    try:
        server.start()
        environment = dict(os.environ, PGHOST=server.socket, PGUSER="postgres")
        result = run(["make", "--no-print-directory", "-C", tree, "installcheck",
                      f"PG_CONFIG={harness.program('pg_config')}"] + variables, env=environment)
        found = re.findall(r"^test (\S+)\s+\.\.\. (ok|FAILED)\D*(\d+) ms", result.stdout, re.M)
        found += re.findall(r"^(?:test)? {5,}(\S+)\s+\.\.\. (ok|FAILED)\D*(\d+) ms", result.stdout, re.M)
        # PostgreSQL 16 and later
        found += [(name, verdict, milliseconds) for verdict, name, milliseconds
                  in re.findall(r"^(ok|not ok) \d+ +[-+] (\S+)\s+(\d+) ms", result.stdout, re.M)]
        for name, verdict, milliseconds in found:
            tally.note(level, name, verdict == "ok", int(milliseconds) / 1000)
        if result.returncode != 0:
            path = os.path.join(tree, diffs)
            if os.path.exists(path):
                with open(path, errors="replace") as file:
                    print(file.read()[:20000])
            if all(verdict == "ok" for _, verdict, _ in found):
                tally.note(level, "installcheck", False, 0, result.stdout[-4000:])
        elif not found:
            tally.note(level, "finds its tests", False, 0, result.stdout[-4000:])
        started = time.monotonic()
        try:
            server.stop()
            server.check_log()
            tally.note(level, "the server log shows no crash", True, time.monotonic() - started)
        except harness.Failure as failure:
            tally.note(level, "the server log shows no crash", False, 0, str(failure))
    finally:
        server.stop("immediate")
        redis.stop()


def run_regress(tally, _):
    headline("regress: the SQL surface")
    installcheck(tally, "regress", ["ISOLATION="], "regression.diffs")


def run_isolation(tally, _):
    headline("isolation: scripted interleavings")
    installcheck(tally, "isolation", ["REGRESS="], "output_iso/regression.diffs")


# ---------------------------------------------------------------------------
# driver: scenarios with real servers that are killed, paused and lied to
# ---------------------------------------------------------------------------

def scenario_names():
    folder = os.path.join(HERE, "driver", "scenarios")
    return sorted(name[:-3] for name in os.listdir(folder)
                  if name.endswith(".py") and not name.startswith("_"))


def run_driver(tally, options):
    names = options.names or scenario_names()
    for name in names:
        module = importlib.import_module(f"scenarios.{name}")
        headline(f"driver: {name}: {module.__doc__.strip().splitlines()[0]}")
        for test in module.TESTS:
            if options.only and options.only not in test.__name__:
                continue
            started = time.monotonic()
            detail = ""
            before = set(os.listdir(os.environ["CACHE_EXT_WORK"])) | {"initdb"}
            try:
                test(options)
            except harness.Failure as failure:
                detail = str(failure) + "\n" + where(failure)
            except Exception:  # a broken test fails, and the run goes on
                detail = traceback.format_exc()
            title = test.__name__.replace("_", " ")
            harness.end_leftovers()
            for leftover in set(os.listdir(os.environ["CACHE_EXT_WORK"])) - before:
                if detail:
                    detail += crash_report(os.path.join(os.environ["CACHE_EXT_WORK"], leftover, "postgres.log"))
                shutil.rmtree(os.path.join(os.environ["CACHE_EXT_WORK"], leftover), ignore_errors=True)
            tally.note(name, title, not detail, time.monotonic() - started, detail)


def crash_report(log):
    """What a server that died has to say, with its stack."""
    try:
        with open(log, errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return ""
    for number, line in enumerate(lines):
        if re.search("TRAP:|AddressSanitizer|runtime error:|PANIC|terminated by signal", line):
            return "\n" + "\n".join(lines[number:number + 40])
    return ""


def where(failure):
    frames = traceback.extract_tb(failure.__traceback__)
    return "\n".join(f"at {os.path.basename(f.filename)}:{f.lineno}: {f.line}" for f in frames[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=None,
                        help="how long randomised scenarios run")
    parser.add_argument("--reads", type=int, default=None,
                        help="how many checked reads the scenario 'consistency' makes, instead")
    parser.add_argument("--seed", type=int, default=None, help="repeat a randomised run")
    parser.add_argument("--only", default=None, help="only driver tests whose name contains this")
    parser.add_argument("level", nargs="?", choices=LEVELS + ("all",), default="all")
    parser.add_argument("names", nargs="*", help="more levels, or driver scenarios after 'driver'")
    options = parser.parse_args()

    levels = LEVELS
    if options.level != "all":
        levels = [options.level]
        if options.level != "driver":
            levels += [name for name in options.names if name in LEVELS]
            options.names = []
    runners = {"unit": run_unit, "regress": run_regress, "isolation": run_isolation,
               "driver": run_driver}
    tally = Tally()
    started = time.monotonic()
    for level in levels:
        try:
            runners[level](tally, options)
        except harness.Failure as failure:
            tally.note(level, "runs", False, 0, str(failure))
    if tally.failed:
        print("failed: " + "; ".join(tally.failed))
    headline(f"{time.monotonic() - started:.0f} s")
    print(f"{tally.passed} passed, {len(tally.failed)} failed", flush=True)
    return 1 if tally.failed or tally.passed == 0 else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))     # lets 'finally' end the servers
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
