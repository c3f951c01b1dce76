"""The rows of the benchmark, the same for everybody: one Parquet file, one row per entity, ten features
(f0, f2, … INT64, f1, f3, … FLOAT64), fixed seed and fixed times."""
import os

ENTITIES_SEED, FEATURES = 7, 10
KEY, TIME, CREATED = "entity_id", "event_timestamp", "created"
# µs UTC: 2026-01-01 00:00; rows lie in the 50 minutes after it.
START, SPREAD, HOUR = 1_767_225_600_000_000, 3_000_000_000, 3_600_000_000
CHUNK = 1_000_000


def columns(ids, at, rng):
    import pyarrow as pa
    n = len(ids)
    times = pa.array(at, pa.int64()).cast(pa.timestamp("us", "UTC"))
    out = {KEY: pa.array(ids, pa.int64()), TIME: times, CREATED: times}
    for i in range(FEATURES):
        out[f"f{i}"] = pa.array(rng.standard_normal(n)) if i % 2 else pa.array(rng.integers(0, 1 << 40, n))
    return pa.table(out)


class Data:
    """`source` is a folder with the file of all entities; changes of some of them may lie beside it."""

    def __init__(self, folder, rows):
        self.rows = rows
        self.folder = os.path.join(os.path.abspath(folder), f"rows-{rows}")
        self.source = os.path.join(self.folder, "source")
        self.file = os.path.join(self.source, "base.parquet")

    def make(self):
        """Writes the file unless it is there."""
        import numpy as np
        import pyarrow.parquet as pq
        os.makedirs(self.source, exist_ok=True)
        self.forget_changes()
        if os.path.exists(self.file):
            return
        rng = np.random.default_rng(ENTITIES_SEED)
        writer = None
        for first in range(0, self.rows, CHUNK):
            ids = np.arange(first, min(first + CHUNK, self.rows), dtype=np.int64)
            table = columns(ids, START + rng.integers(0, SPREAD, len(ids)), rng)
            writer = writer or pq.ParquetWriter(self.file + ".part", table.schema)
            writer.write_table(table)
        writer.close()
        os.rename(self.file + ".part", self.file)

    def change(self, number, share):
        """A file with newer rows of that share of the entities; tells how many."""
        import numpy as np
        import pyarrow.parquet as pq
        step = max(1, round(1 / share))
        ids = np.arange(number % step, self.rows, step, dtype=np.int64)
        rng = np.random.default_rng(ENTITIES_SEED + number)
        at = START + number * HOUR + rng.integers(0, SPREAD, len(ids))
        pq.write_table(columns(ids, at, rng), os.path.join(self.source, f"change-{number}.parquet"))
        return len(ids)

    def forget_changes(self):
        for name in os.listdir(self.source):
            if name != "base.parquet":
                os.remove(os.path.join(self.source, name))
