"""One generated data set: where its files are, what is in them."""
import glob
import json
import os

TS, CREATED = "event_ts", "created_ts"


class Data:
    def __init__(self, path):
        self.path = os.path.abspath(path)
        with open(os.path.join(path, "meta.json")) as f:
            self.meta = json.load(f)
        self.keys = self.meta["keys"]
        self.labels = os.path.join(self.path, "labels.parquet")
        found = [os.path.basename(p)[:-8] for p in glob.glob(os.path.join(path, "v*.parquet"))]
        self.views = sorted(found, key=lambda v: int(v[1:]))
        self.features = [f"n{i}" for i in range(self.meta["numeric"])] + [f"s{i}" for i in range(self.meta["strings"])]
        self.ttl_days = self.meta["ttl_days"]
        self.ttl_us = self.ttl_days * 86_400_000_000
        self.has_ties = self.meta["ties"] > 1

    def file(self, view):
        return os.path.join(self.path, f"{view}.parquet")

    def view_columns(self):
        """What the join has to read of a view."""
        return [*self.keys, TS, *([CREATED] if self.has_ties else []), *self.features]
