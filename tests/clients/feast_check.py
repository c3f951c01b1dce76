#!/usr/bin/env python3
"""A Feast repository becomes SQL, and both systems answer the same: historical features and online ones, row for row.

    feast_check.py REMIGE          runs where Feast is installed (benches/online/setup.sh makes such an environment)

Differences of meaning, which the check names and expects:
- online, Feast serves a row past its ttl as it is; Remige answers NULL, as its training sets do;
- Feast's file store drops a label whose key has rows in a view but none that is live; Remige keeps every label;
- a Python transformation is listed by the program, and written by hand here as an expression of a service.
"""
import io
import os
import subprocess
import sys
import tempfile
from datetime import datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pyarrow as pa

HERE = os.path.dirname(os.path.abspath(__file__))
NOW = datetime.now(timezone.utc).replace(microsecond=0)
USERS, ITEMS = 40, 15

DEFINITIONS = '''
from datetime import timedelta

import pandas as pd
from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, RequestSource, ValueType
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Bool, Float64, Int64, String

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64, description="somebody who orders")
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.STRING, tags={"team": "shop"})
orders = FileSource(name="orders", path="orders.parquet", timestamp_field="ordered_at", created_timestamp_column="loaded_at")
stock = FileSource(name="stock", path="stock.parquet", timestamp_field="counted_at", field_mapping={"n": "pieces"})
scores = FileSource(name="scores", path="scores.parquet", timestamp_field="scored_at")
pushed = PushSource(name="scores_push", batch_source=scores)
user_orders = FeatureView(name="user_orders", entities=[user], ttl=timedelta(days=7), source=orders, online=True, owner="ml@shop",
    schema=[Field(name="user_id", dtype=Int64), Field(name="amount", dtype=Float64, description="of the last order, in euros"), Field(name="city", dtype=String)])
item_stock = FeatureView(name="item_stock", entities=[item], ttl=timedelta(0), source=stock, online=True,
    schema=[Field(name="item_id", dtype=String), Field(name="pieces", dtype=Int64)])
user_score = FeatureView(name="user_score", entities=[user], ttl=timedelta(days=30), source=pushed, online=True,
    schema=[Field(name="user_id", dtype=Int64), Field(name="score", dtype=Float64), Field(name="blocked", dtype=Bool)])
basket = RequestSource(name="basket", schema=[Field(name="basket", dtype=Float64)])

@on_demand_feature_view(sources=[user_orders, basket], schema=[Field(name="ratio", dtype=Float64)])
def basket_ratio(inputs: pd.DataFrame) -> pd.DataFrame:
    out = pd.DataFrame()
    out["ratio"] = inputs["basket"] / inputs["amount"]
    return out

checkout = FeatureService(name="checkout", features=[user_orders, item_stock[["pieces"]], user_score], description="the model at the till")
'''
CONFIG = """project: shop
registry: registry.db
provider: local
entity_key_serialization_version: 3
offline_store:
    type: file
online_store:
    type: sqlite
    path: online.db
"""
FEATURES = ["user_orders:amount", "user_orders:city", "item_stock:pieces", "user_score:score", "user_score:blocked"]
NAMES = [f.split(":")[1] for f in FEATURES]


def ago(hours):
    return [NOW - timedelta(hours=float(h)) for h in hours]


def make(folder):
    rng = np.random.default_rng(11)
    n = 600
    stamp = lambda hours: pd.to_datetime(pd.Series(ago(hours)), utc=True).astype("datetime64[us, UTC]")
    ordered = rng.integers(0, 24 * 20 * 60, n) / 60
    pd.DataFrame({"user_id": rng.integers(0, USERS, n), "ordered_at": stamp(ordered), "loaded_at": stamp(np.maximum(ordered - rng.random(n), 0)),
                  "amount": np.round(rng.random(n) * 90 + 10, 2), "city": rng.choice(["Bonn", "Ulm", "Trier"], n)}).to_parquet(f"{folder}/orders.parquet")
    pd.DataFrame({"item_id": [f"i{i}" for i in rng.integers(0, ITEMS, n)], "counted_at": stamp(rng.integers(0, 24 * 60 * 60, n) / 60),
                  "n": rng.integers(0, 500, n)}).drop_duplicates(["item_id", "counted_at"]).to_parquet(f"{folder}/stock.parquet")
    pd.DataFrame({"user_id": rng.integers(0, USERS - 5, n), "scored_at": stamp(rng.integers(0, 24 * 90 * 60, n) / 60), "score": rng.random(n),
                  "blocked": rng.random(n) < 0.2}).drop_duplicates(["user_id", "scored_at"]).to_parquet(f"{folder}/scores.parquet")
    with open(f"{folder}/definitions.py", "w") as f:
        f.write(DEFINITIONS)
    with open(f"{folder}/feature_store.yaml", "w") as f:
        f.write(CONFIG)
    labels = pd.DataFrame({"user_id": rng.integers(0, USERS, 300), "item_id": [f"i{i}" for i in rng.integers(0, ITEMS + 2, 300)],
                           "event_timestamp": stamp(rng.integers(0, 24 * 25 * 60, 300) / 60), "n": range(300)})
    labels.to_parquet(f"{folder}/labels.parquet")
    return labels


def without_a_live_row(repo, labels):
    """Labels whose key has rows in a view, none of them live at the label's instant."""
    found = set()
    for table, key, time, days in (("orders", "user_id", "ordered_at", 7), ("scores", "user_id", "scored_at", 30), ("stock", "item_id", "counted_at", 9999)):
        pairs = pd.merge(labels, pd.read_parquet(f"{repo}/{table}.parquet")[[key, time]], on=key)
        age = pairs["event_timestamp"] - pairs[time]
        live = pairs[(age >= pd.Timedelta(0)) & (age <= pd.Timedelta(days=days))]
        found |= set(pairs["n"]) - set(live["n"])
    return found


def same(a, b):
    none = lambda v: v is None or (isinstance(v, float) and np.isnan(v)) or v is pd.NA
    if none(a) or none(b):
        return none(a) and none(b)
    return a == b or (isinstance(a, float) and abs(a - b) < 1e-12)


def main():
    remige = os.path.abspath(sys.argv[1])
    wrong = []

    def check(what, holds, seen=""):
        print(f"  {'ok  ' if holds else 'FAIL'} {what}{'' if holds else f': {seen}'}")
        if not holds:
            wrong.append(what)

    with tempfile.TemporaryDirectory() as tmp:
        repo, warehouse = os.path.join(tmp, "repo"), os.path.join(tmp, "w")
        os.makedirs(repo)
        labels = make(repo)

        def sql(statements):
            done = subprocess.run([remige, "sql", "-w", warehouse, "--format", "arrow", "-c", statements], capture_output=True)
            if done.returncode:
                sys.exit(f"{statements}\n{done.stderr.decode()}")
            return done.stdout

        rows = lambda query: pa.ipc.open_stream(io.BytesIO(sql(query))).read_all().to_pylist()
        subprocess.run([sys.executable, "-m", "feast.cli.cli", "-c", repo, "apply"], cwd=repo, check=True, capture_output=True)
        done = subprocess.run([sys.executable, os.path.join(HERE, "../../examples/feast_to_sql.py"), repo], capture_output=True, text=True)
        text = done.stdout
        if os.environ.get("LOUD"):
            print(text, done.stderr)
        check("the program lists what has no SQL, and says so", done.returncode == 3 and "1 things" in done.stderr, done.stderr[-500:])
        check("the Python of the on-demand view is in the list", 'inputs["basket"] / inputs["amount"]' in text, text[-500:])
        sql(text)
        sql("REFRESH ALL FEATURE VIEWS")
        check("all is declared", {r["name"] for r in rows("SELECT name FROM system.feature_views")} == {"user_orders", "item_stock", "user_score"})
        check("comments, owners and tags came along", "of the last order, in euros" in str(rows("SHOW CREATE FEATURE VIEW user_orders"))
              and "ml@shop" in str(rows("SHOW CREATE FEATURE VIEW user_orders")) and "team" in str(rows("SHOW CREATE ENTITY item")))

        from feast import FeatureStore
        store = FeatureStore(repo)
        theirs = store.get_historical_features(entity_df=labels, features=FEATURES).to_df().set_index("n")
        ours = {r["n"]: r for r in rows(f"SELECT l.n, f.* FROM read_parquet('{repo}/labels.parquet') l ASOF JOIN checkout f AT l.event_timestamp")}
        theirs = {n: row for n, row in theirs.iterrows()}
        differ = [(n, c, ours[n][c], theirs[n][c]) for n in theirs for c in NAMES if not same(ours[n][c], theirs[n][c])]
        known = sum(not same(ours[n][c], None) for n in theirs for c in NAMES)
        check(f"historical features: {len(theirs)} rows × {len(NAMES)}, {known} not NULL, are the same; {len(ours) - len(theirs)} labels are kept that Feast drops",
              not differ and len(ours) == 300 and len(theirs) > 150 and known > 600, differ[:5])
        dropped = set(ours) - set(theirs)
        why = without_a_live_row(repo, labels)
        check("those are the ones whose key has rows in a view, but none that is live", dropped == why and dropped, dropped ^ why)

        store.materialize(NOW - timedelta(days=100), NOW)
        sql("MATERIALIZE ALL FEATURE VIEWS")
        keys = [{"user_id": u, "item_id": f"i{u % (ITEMS + 2)}"} for u in range(USERS)]
        theirs = store.get_online_features(features=FEATURES, entity_rows=keys).to_dict()
        asked = ", ".join(f"({k['user_id']}, '{k['item_id']}')" for k in keys)
        ours = rows(f"SELECT * FROM ONLINE_LOOKUP('checkout', {asked}, status => true)")
        late = [c for c in ours[0] if c.endswith("status")]
        expired, differ, compared = 0, [], 0
        for i, row in enumerate(ours):
            states = {row[c] for c in late}
            for c in NAMES:
                if row[c] is None and theirs[c][i] is not None and "OUTSIDE_MAX_AGE" in states:
                    expired += 1
                    continue
                compared += 1
                if not same(row[c], theirs[c][i]):
                    differ.append((keys[i], c, row[c], theirs[c][i]))
        check(f"online features: {compared} values are the same; {expired} are past their ttl, which Feast serves", not differ and compared > 120, differ[:5])

        sql("""CREATE FEATURE SERVICE with_ratio REQUEST (basket DOUBLE) AS SELECT o.amount, basket / o.amount AS ratio FROM user_orders o""")
        theirs = store.get_online_features(features=["user_orders:amount", "basket_ratio:ratio"], entity_rows=[{"user_id": u, "basket": 50.0} for u in range(USERS)]).to_dict()
        ours = rows("SELECT * FROM ONLINE_LOOKUP('with_ratio', " + ", ".join(f"({u}, 50.0)" for u in range(USERS)) + ")")
        differ = [(u, r["ratio"], theirs["ratio"][u]) for u, r in enumerate(ours) if r["amount"] is not None and not same(r["ratio"], theirs["ratio"][u])]
        check("the on-demand view, written as an expression, gives the same", not differ and sum(r["ratio"] is not None for r in ours) > 10, differ[:5])

        fresh = pd.DataFrame({"user_id": [3], "scored_at": [pd.Timestamp(NOW)], "score": [0.125], "blocked": [True]})
        store.push("scores_push", fresh)
        sql(f"INSERT INTO user_score VALUES (3, TIMESTAMP '{NOW:%Y-%m-%d %H:%M:%S}', 0.125, true)")
        theirs = store.get_online_features(features=["user_score:score"], entity_rows=[{"user_id": 3}]).to_dict()["score"]
        ours = rows("SELECT * FROM ONLINE_LOOKUP('user_score', 3)")[0]
        check("push and INSERT: live at once in both", theirs == [0.125] and ours["score"] == 0.125 and ours["blocked"], (theirs, ours))
    print("feast_check: " + ("passed" if not wrong else "FAILED"))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
