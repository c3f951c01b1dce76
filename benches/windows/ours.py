"""Remige: the view of a data set, and its training set; and DataFusion's own windows, through the same program."""
import os
import shutil
import subprocess

SQL = {"count": "count(*)", "sum": "sum(x)", "avg": "avg(x)", "max": "max(x)"}


class Remige:
    def __init__(self, program, d):
        self.program, self.d = os.path.abspath(program), d
        self.warehouse = os.path.join(d.path, f"warehouse-{d.name}")

    def sql(self, text, *more):
        done = subprocess.run([self.program, "sql", "-w", self.warehouse, *more, "-c", text], capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{text[:300]}\n{done.stderr[-800:]}")
        return done.stdout

    def prepare(self, fresh):
        if fresh:
            shutil.rmtree(self.warehouse, ignore_errors=True)
        if not os.path.exists(self.warehouse):
            how = " EXACT" if self.d.preset["exact"] else ""
            calls = [f"{SQL[a]} OVER {w} AS {a}_{w}" for w, _, _ in self.d.windows() for a in self.d.preset["aggregates"]]
            named = [f"{w} AS (LAST '{length}'{how})" for w, length, _ in self.d.windows()]
            self.sql(f"""CREATE ENTITY u KEY (id BIGINT);
                CREATE FEATURE VIEW v ENTITY u EVENT TIMESTAMP ts AS SELECT {', '.join(calls)} FROM read_parquet('{self.d.events}') WINDOW {', '.join(named)};
                REFRESH FEATURE VIEW v""")

    def command(self, engine, out, threads, limit):
        d = self.d
        if engine == "datafusion":
            frames = [f"{w} AS (PARTITION BY id ORDER BY t RANGE BETWEEN INTERVAL '{length}' PRECEDING AND CURRENT ROW)" for w, length, _ in d.windows()]
            calls = [f"{c.replace('*', 'x')} OVER {w} AS {a}_{w}" for w, _, _ in d.windows() for a, c in SQL.items() if a in d.preset["aggregates"]]
            query = f"""SELECT n, {', '.join(d.columns())} FROM (SELECT n, {', '.join(calls)} FROM (
                SELECT id, ts AS t, x, CAST(NULL AS BIGINT) AS n FROM read_parquet('{d.events}') UNION ALL
                SELECT id, at, CAST(NULL AS DOUBLE), n FROM read_parquet('{d.labels}')) u WINDOW {', '.join(frames)}) w WHERE n IS NOT NULL"""
        else:
            query = f"SELECT l.n, {', '.join('f.' + c for c in d.columns())} FROM read_parquet('{d.labels}') l ASOF JOIN v f AT l.at"
        limited = ["--memory-limit", limit] if limit else []
        return [self.program, "sql", "-w", self.warehouse, "--threads", str(threads), *limited, "-c", f"COPY ({query}) TO '{out}'"]
