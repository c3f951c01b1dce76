#!/usr/bin/env python3
"""A warehouse and a Redis that an older binary wrote are opened, read, served and written on.

    older_check.py REMIGE            checks every folder of tests/golden
    older_check.py REMIGE --expect   writes expected.json anew; only with the binary that wrote the warehouse

Each folder of tests/golden holds what make.sql left behind: embedded.tar.gz (a warehouse with the embedded store),
redis.tar.gz (a warehouse and the dump of its Redis), and expected.json (what the older binary answered).
"""
import json
import pathlib
import subprocess
import sys
import tarfile
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from redis_check import Redis  # noqa: E402

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"
AT = "at => TIMESTAMP '2026-01-05 00:00:00', status => true"
# Reads of every kind of object, in an order that no store decides.
READS = [
    "SELECT * FROM orders ORDER BY 1, 2",
    "SELECT * FROM orders VERSION AS OF 1 ORDER BY 1, 2",
    "SELECT * FROM big_orders ORDER BY 1, 2",
    "SELECT * FROM customer_orders ORDER BY 1, 2",
    "SELECT * FROM customer_risk ORDER BY 1, 2",
    "SELECT * FROM item_stock@v1 ORDER BY 1, 2, 3",
    "SELECT * FROM item_stock ORDER BY 1, 2, 3",
    "SELECT * FROM first_set ORDER BY 1, 2",
    "DESCRIBE customer_orders",
    "DESCRIBE checkout_v1",
    "SELECT kind, object, version, status, rows_written FROM system.runs ORDER BY started_at",
    "SELECT name, version, entities, keys, features, ttl, online, kind, rows, watermark, query, comment, owner, tags "
    "FROM system.feature_views ORDER BY name, version",
    f"SELECT * FROM ONLINE_LOOKUP('checkout_v1', (1, 150.0), (2, 10.0), (3, 10.0), (99, 1.0), {AT})",
    f"SELECT * FROM ONLINE_LOOKUP('customer_risk', 1, 2, 5, 6, 7, {AT})",
    f"SELECT * FROM ONLINE_LOOKUP('item_stock@v1', ('a', 9.99), ('a', 10.00), ('b', 9.99), {AT})",
    "SELECT l.user_id, c.mean_order, c.score, c.unusual FROM (VALUES (1, 9.5, TIMESTAMP '2026-01-05'), (4, 0.5, TIMESTAMP '2026-01-05')) "
    "l(user_id, basket, at) ASOF JOIN checkout_v1 c AT l.at ORDER BY 1",
]


class Warehouse:
    def __init__(self, remige, folder, options=()):
        self.remige, self.folder, self.options = remige, folder, options

    def run(self, text):
        return subprocess.run([self.remige, "sql", "-w", str(self.folder), *self.options, "--format", "json", "-c", text],
                              capture_output=True, text=True, timeout=300)

    def rows(self, text):
        done = self.run(text)
        assert done.returncode == 0, f"{text}\n{done.stderr}"
        return [json.loads(line) for line in done.stdout.splitlines()]


def answers(warehouse):
    return {text: warehouse.rows(text) for text in READS}


def written_on(w, definitions):
    """What a user does on the day after the upgrade."""
    for definition in definitions:
        done = w.run(definition)
        assert done.returncode == 0 and "unchanged" in done.stderr, f"not unchanged:\n{definition}\n{done.stderr}"
    w.rows("INSERT INTO orders VALUES (1, TIMESTAMP '2026-01-04 12:00:00', 1.0, 'new')")
    run = w.rows("REFRESH FEATURE VIEW customer_orders")[0]
    assert run["status"] == "succeeded", run
    spent = w.rows("SELECT spent FROM customer_orders WHERE user_id = 1 ORDER BY ordered_at DESC LIMIT 1")
    assert spent == [{"spent": 61.5}], spent
    # rows of an older load and rows of this binary in one table, offline and online
    w.rows("INSERT INTO customer_risk (user_id, scored_at, score) VALUES (1, TIMESTAMP '2026-01-06', 0.7), (8, TIMESTAMP '2026-01-06', 0.8)")
    w.rows("DELETE FROM customer_risk WHERE user_id IN (SELECT 2)")
    found = w.rows("SELECT user_id, score, customer_risk__status AS s FROM ONLINE_LOOKUP('customer_risk', 1, 2, 5, 8, status => true)")
    assert found == [{"user_id": 1, "score": 0.7, "s": "PRESENT"}, {"user_id": 2, "score": None, "s": "NOT_FOUND"},
                     {"user_id": 5, "score": 0.9, "s": "PRESENT"}, {"user_id": 8, "score": 0.8, "s": "PRESENT"}], found
    w.rows("OPTIMIZE FEATURE VIEW customer_risk")
    w.rows("MATERIALIZE FEATURE VIEW customer_risk FULL")
    checked = w.rows("VERIFY FEATURE VIEW customer_risk")
    assert [c["mismatches"] for c in checked] == [0] and checked[0]["keys_checked"] >= 3, checked
    rebuilt = w.rows("REBUILD TRAINING SET first_set")[0]
    assert rebuilt["identical"] is True, rebuilt


def check(name, w, expected):
    for text, want in expected.items():
        got = w.rows(text)
        assert got == want, f"{name}: {text}\nthen {json.dumps(want)}\nnow  {json.dumps(got)}"
    definitions = [row["statement"].replace("CREATE ", "CREATE OR REPLACE ", 1) for view in ("customer_orders", "customer_risk")
                   for row in w.rows(f"SHOW CREATE FEATURE VIEW {view}")]
    written_on(w, definitions)
    print(f"older_check: {name}: {len(expected)} reads as then, and written on", flush=True)


def main():
    remige = sys.argv[1]
    for folder in sorted(p for p in GOLDEN.iterdir() if p.is_dir()):
        expected_file = folder / "expected.json"
        with tempfile.TemporaryDirectory() as tmp:
            tmp = pathlib.Path(tmp)
            for name in ("embedded", "redis"):
                with tarfile.open(folder / f"{name}.tar.gz") as archive:
                    archive.extractall(tmp, filter="data")
            if "--expect" in sys.argv:
                shown = answers(Warehouse(remige, tmp / "embedded"))
                expected_file.write_text(json.dumps(shown, indent=1, ensure_ascii=False) + "\n")
            expected = json.loads(expected_file.read_text())
            embedded = Warehouse(remige, tmp / "embedded")
            check(f"{folder.name}, embedded", embedded, expected)
            redis = Redis(str(tmp), "--dbfilename", "dump.rdb")
            try:
                redis.start()
                # runs and ids differ between the two warehouses, values do not
                same = {t: rows for t, rows in expected.items() if "system." not in t}
                check(f"{folder.name}, redis", Warehouse(remige, tmp / "warehouse", ("--online", redis.url)), same)
            finally:
                redis.stop()


if __name__ == "__main__":
    main()
