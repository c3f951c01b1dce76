#!/usr/bin/env python3
"""Feast's side of the benchmark; runs in Feast's environment.

    feast_repo.py apply FOLDER PARQUET REDIS       a repository whose online store is the Redis at host:port
    feast_repo.py materialize FOLDER               prints seconds, CPU seconds and peak memory as JSON
"""
import json
import os
import resource
import sys
import time
from datetime import datetime, timedelta, timezone

from data import CREATED, FEATURES, KEY, TIME


def apply(folder, parquet, redis):
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
    from feast.types import Float64, Int64
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "feature_store.yaml"), "w") as f:
        f.write("project: bench\nregistry: registry.db\nprovider: local\nentity_key_serialization_version: 3\n"
                f"offline_store:\n    type: file\nonline_store:\n    type: redis\n    connection_string: \"{redis}\"\n")
    os.chdir(folder)
    entity = Entity(name=KEY, join_keys=[KEY], value_type=ValueType.INT64)
    source = FileSource(name="rows", path=parquet, timestamp_field=TIME, created_timestamp_column=CREATED)
    schema = [Field(name=KEY, dtype=Int64)] + [Field(name=f"f{i}", dtype=Float64 if i % 2 else Int64) for i in range(FEATURES)]
    view = FeatureView(name="bench", entities=[entity], ttl=timedelta(0), online=True, source=source, schema=schema)
    FeatureStore(".").apply([entity, view])


def materialize(folder):
    import feast
    os.chdir(folder)
    store = feast.FeatureStore(".")
    start = time.perf_counter()
    store.materialize(datetime(2025, 12, 31, tzinfo=timezone.utc), datetime(2026, 1, 2, tzinfo=timezone.utc))
    seconds = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"feast": feast.__version__, "seconds": seconds, "cpu_s": used.ru_utime + used.ru_stime, "rss_mb": used.ru_maxrss / 1024}))


if __name__ == "__main__":
    {"apply": apply, "materialize": materialize}[sys.argv[1]](*sys.argv[2:])
