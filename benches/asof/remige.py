"""Remige on a data set: its statements, and the warehouse that holds the views.

`remige`        the Parquet files as external tables of a fresh warehouse: declaring them is timed, as opening files is
                for the other engines.
`remige-views`  the same rows as feature views, refreshed beforehand: only the join is timed.
Both run one statement with one join per view, which must be planned into one node.
"""
import csv
import hashlib
import io
import json
import os
import shutil
import subprocess
import time

from data import CREATED, TS

SQL_TYPE = {"int64": ["BIGINT"], "string": ["VARCHAR"], "composite": ["BIGINT", "VARCHAR"]}
MODES = ("remige", "remige-views")


def external(name, path):
    return f"CREATE EXTERNAL TABLE {name} STORED AS PARQUET LOCATION '{path}';"


def selected(d):
    return ", ".join(["l.*"] + [f"{v}.{c} AS {v}__{c}" for v in d.views for c in d.features])


def raw_join(d):
    joins = []
    for v in d.views:
        source = v
        if d.has_ties:
            source = (f"(SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY {', '.join(d.keys)}, {TS} "
                      f"ORDER BY {CREATED} DESC) AS latest FROM {v}) WHERE latest = 1)")
        on = " AND ".join(f"l.{k} = {v}.{k}" for k in d.keys)
        joins.append(f"ASOF JOIN {source} {v} MATCH_CONDITION (l.{TS} >= {v}.{TS}) ON {on} WITHIN INTERVAL '{d.ttl_days} days'")
    return f"SELECT {selected(d)} FROM labels l " + " ".join(joins)


def view_join(d):
    return f"SELECT {selected(d)} FROM labels l " + " ".join(f"ASOF JOIN {v} AT l.{TS}" for v in d.views)


def copy_to(select, out):
    return f"COPY ({select}) TO '{out}' STORED AS PARQUET OPTIONS (compression 'snappy');"


def declare_raw(d):
    return [external("labels", d.labels)] + [external(v, d.file(v)) for v in d.views]


def declare_views(d):
    keys = ", ".join(f"{k} {t}" for k, t in zip(d.keys, SQL_TYPE[d.meta["key"]]))
    out = [external("labels", d.labels), f"CREATE ENTITY entity KEY ({keys});"]
    for v in d.views:
        out += [external(f"{v}_rows", d.file(v)),
                f"CREATE FEATURE VIEW {v} ENTITY entity EVENT TIMESTAMP {TS} CREATED TIMESTAMP {CREATED} "
                f"TTL INTERVAL '{d.ttl_days} days' AS SELECT * FROM {v}_rows;"]
    return out


def run_sql(binary, warehouse, sql, fmt="csv"):
    p = subprocess.run([binary, "sql", "-w", warehouse, "--format", fmt, "-c", sql], capture_output=True, text=True)
    if p.returncode != 0:
        raise SystemExit(f"{binary} failed: {p.stderr.strip()[-2000:]}")
    return p.stdout


class Remige:
    """The binary on one data set; the stored views are kept until data, definitions or the program's version
    change; `bench.py run --fresh` makes them again (after a change of how views are stored)."""

    def __init__(self, binary, d):
        self.binary, self.d = os.path.abspath(binary), d
        self.warehouse = os.path.join(d.path, "warehouse")
        self.stamp = os.path.join(d.path, "warehouse.json")

    def command(self, mode, out, threads, limit=None):
        """Writes the script of one run beside `out`; gives the command to time."""
        d, tmp = self.d, os.path.dirname(out)
        raw = mode == "remige"
        lines = (declare_raw(d) if raw else []) + [copy_to(raw_join(d) if raw else view_join(d), out)]
        script = os.path.join(tmp, "join.sql")
        with open(script, "w") as f:
            f.write("\n".join(lines) + "\n")
        cmd = [self.binary, "sql", "-w", os.path.join(tmp, "warehouse") if raw else self.warehouse,
               "--threads", str(threads), "--spill-dir", tmp, "-f", script]
        return cmd + (["--memory-limit", limit] if limit else [])

    def prepare(self, fresh=False):
        """Makes the views unless they are there; gives {rows, seconds, bytes} of the REFRESH statements."""
        version = subprocess.run([self.binary, "--version"], capture_output=True, text=True, check=True).stdout.strip()
        version += " " + os.path.basename(os.path.dirname(self.binary))  # release or debug: REFRESH is timed
        what = json.dumps([version, self.d.meta, declare_views(self.d)], sort_keys=True)
        key = hashlib.sha256(what.encode()).hexdigest()
        if not fresh and os.path.exists(self.stamp):
            with open(self.stamp) as f:
                made = json.load(f)
            if made["key"] == key and os.path.isdir(self.warehouse):
                return made
        if os.path.exists(self.stamp):
            os.remove(self.stamp)
        shutil.rmtree(self.warehouse, ignore_errors=True)
        run_sql(self.binary, self.warehouse, "\n".join(declare_views(self.d)))
        made = {"key": key, "binary": self.binary, "rows": 0, "bytes": 0, "seconds": 0.0}
        for v in self.d.views:
            start = time.perf_counter()
            text = run_sql(self.binary, self.warehouse, f"REFRESH FEATURE VIEW {v} FULL")
            made["seconds"] += time.perf_counter() - start
            run = next(csv.DictReader(io.StringIO(text)))
            if int(run["rows_written"]) != self.d.meta["view_rows"][v]:
                raise SystemExit(f"REFRESH {v} wrote {run['rows_written']} rows of {self.d.meta['view_rows'][v]}")
            made["rows"] += int(run["rows_written"])
            made["bytes"] += int(run["bytes_written"])
        with open(self.stamp, "w") as f:
            json.dump(made, f)
        return made

    def check_plan(self, mode):
        """All views of the statement must be joined by one node."""
        if mode == "remige":
            plan = run_sql(self.binary, os.path.join(self.d.path, "warehouse-plan"),
                           "\n".join(declare_raw(self.d)) + f"EXPLAIN {raw_join(self.d)}", "json")
            shutil.rmtree(os.path.join(self.d.path, "warehouse-plan"), ignore_errors=True)
        else:
            plan = run_sql(self.binary, self.warehouse, f"EXPLAIN {view_join(self.d)}", "json")
        if plan.count("PitJoinExec") != 1:
            raise SystemExit(f"{mode}: {plan.count('PitJoinExec')} joins instead of one:\n{plan}")
