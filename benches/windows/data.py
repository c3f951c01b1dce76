"""The data sets of bench.py: labels and events over 90 days, in the order of time, as logs come."""
import os

DAY = 86_400_000_000
BEGIN = 1_767_225_600_000_000  # 2026-01-01, UTC
KEYS = 100_000
# name: labels, events, exponent of Zipf's law for keys, windows ({length: steps}), aggregates
LENGTHS = {"1 hour": DAY // 24, "1 day": DAY, "7 days": 7 * DAY, "30 days": 30 * DAY}
# written down here once more: an answer of the program is compared with what these give
STEPS = {"1 hour": DAY // 5760, "1 day": DAY // 96, "7 days": DAY // 24, "30 days": DAY // 8}
ALL = ("count", "sum", "avg", "max")
PRESETS = {
    "W-S": dict(labels=100_000, events=1_000_000, zipf=0, exact=False, lengths=list(LENGTHS), aggregates=ALL),
    "W-M": dict(labels=1_000_000, events=10_000_000, zipf=0, exact=False, lengths=list(LENGTHS), aggregates=ALL),
    "W-Z": dict(labels=1_000_000, events=10_000_000, zipf=1.1, exact=False, lengths=list(LENGTHS), aggregates=ALL),
    "W-X": dict(labels=1_000_000, events=10_000_000, zipf=0, exact=True, lengths=list(LENGTHS), aggregates=ALL),
    "W-10": dict(labels=10_000_000, events=10_000_000, zipf=0, exact=False, lengths=["30 days"], aggregates=("count",)),
    "W-10X": dict(labels=10_000_000, events=10_000_000, zipf=0, exact=True, lengths=["30 days"], aggregates=("count",)),
}


class Data:
    def __init__(self, name, folder):
        self.name, self.preset = name, PRESETS[name]
        p = self.preset
        # presets of the same rows share their files
        self.path = os.path.join(folder, f"{p['labels']}-{p['events']}-{p['zipf']}")
        self.labels, self.events = (os.path.join(self.path, f"{n}.parquet") for n in ("labels", "events"))

    def make(self):
        if os.path.exists(self.labels):
            return
        import numpy as np
        import pyarrow as pa
        import pyarrow.parquet as pq
        os.makedirs(self.path, exist_ok=True)
        rng = np.random.default_rng(7)
        p = self.preset
        for path, rows, instant in ((self.events, p["events"], "ts"), (self.labels, p["labels"], "at")):
            if p["zipf"]:
                weights = np.cumsum(np.arange(1, KEYS + 1) ** -p["zipf"])
                ids = np.searchsorted(weights, rng.random(rows) * weights[-1]).astype(np.int64)
            else:
                ids = rng.integers(0, KEYS, rows)
            at = np.sort(rng.integers(0, 90 * DAY, rows)) + BEGIN
            columns = {"id": ids, instant: pa.array(at).cast(pa.timestamp("us", "UTC"))}
            if instant == "ts":
                columns["x"] = np.round(rng.random(rows) * 100, 2)
            else:
                columns = {"n": np.arange(rows), **columns}
            pq.write_table(pa.table(columns), path + ".new", row_group_size=1 << 20)
            os.rename(path + ".new", path)

    def windows(self):
        """Name, length in words, length in microseconds."""
        return [(f"w{i}", length, LENGTHS[length]) for i, length in enumerate(self.preset["lengths"])]

    def steps(self):
        """Microseconds by which the older end of each window moves."""
        return {w: 1 if self.preset["exact"] else STEPS[length] for w, length, _ in self.windows()}

    def columns(self):
        return [f"{a}_{w}" for w, _, _ in self.windows() for a in self.preset["aggregates"]]
