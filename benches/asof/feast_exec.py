#!/usr/bin/env python3
"""Feast on a data set, in an environment of its own (pip install 'feast[duckdb]'):

    bench.py run … --exec feast='/path/to/venv/bin/python benches/asof/feast_exec.py {data} {out} {threads}'
    bench.py run … --exec feast-dask='… feast_exec.py {data} {out} {threads} dask'
"""
import os
import sys
import tempfile
import time
from datetime import timedelta

from data import CREATED, TS, Data


def main():
    d, out, threads = Data(sys.argv[1]), sys.argv[2], sys.argv[3]
    kind = sys.argv[4] if len(sys.argv) > 4 else "duckdb"
    os.environ["DUCKDB_THREADS"] = threads
    import pandas as pd
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float64, Int64, String

    def type_of(column):
        return String if column[0] == "s" else Int64 if int(column[1:]) % 3 == 0 else Float64

    start = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=os.path.dirname(out)) as tmp:
        store = FeatureStore(config=RepoConfig(
            project="bench", provider="local", registry=os.path.join(tmp, "registry.db"),
            online_store=None, offline_store={"type": kind}, entity_key_serialization_version=3))
        # One entity per key column: Feast has no composite ones.
        text = {"string": ["entity_id"], "composite": ["site"]}.get(d.meta["key"], [])
        entities = [Entity(name=k, join_keys=[k], value_type=ValueType.STRING if k in text else ValueType.INT64)
                    for k in d.keys]
        views = [FeatureView(name=v, entities=entities, ttl=timedelta(days=d.ttl_days), online=False,
                             schema=[Field(name=c, dtype=type_of(c)) for c in d.features],
                             source=FileSource(path=d.file(v), timestamp_field=TS, created_timestamp_column=CREATED))
                 for v in d.views]
        store.apply([*entities, *views])
        labels = pd.read_parquet(d.labels).rename(columns={TS: "event_timestamp"})
        got = store.get_historical_features(
            entity_df=labels, full_feature_names=True,
            features=[f"{v}:{c}" for v in d.views for c in d.features]).to_df()
        got.rename(columns={"event_timestamp": TS}).to_parquet(out, compression="snappy", index=False)
    print(f"engine_seconds={time.perf_counter() - start:.4f}")


if __name__ == "__main__":
    main()
