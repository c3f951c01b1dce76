"""The page of a benchmark's results."""
import json
import os
import statistics

MODES = {"raw-mget": "raw MGET", "ticket": "ticket", "query-ticket": "ticket with SQL", "prepared": "prepared statement", "http": "Feast's HTTP server"}
GB = 1e9 / 2**20


class Results:
    """The records of one or more files; where a section was measured in several sessions, the last counts."""

    def __init__(self, paths):
        self.sessions, self.recs = [], []
        for path in paths:
            with open(path) as f:
                for line in f:
                    rec = json.loads(line)
                    if "session" in rec:
                        self.sessions.append(rec["session"])
                    else:
                        self.recs.append({**rec, "of": len(self.sessions) - 1})

    def find(self, **want):
        found = [r for r in self.recs if all(r.get(k) == v for k, v in want.items())]
        last = max((r["of"] for r in found), default=None)
        return [r for r in found if r["of"] == last]

    def median(self, field, **want):
        found = self.find(**want)
        return statistics.median(r[field] for r in found) if found else None


def median_of(path, field, **want):
    results = Results([path])
    found = [r for r in results.find(**want) if r["of"] == len(results.sessions) - 1]
    return statistics.median(r[field] for r in found) if found else None


class Targets:
    """Rows of the first table. `at_most` and `at_least` judge; a figure that was not measured is a dash."""

    def __init__(self):
        self.lines = ["| figure | ours | compared with | value | target | |", "|---|---|---|---|---|---|"]

    def add(self, figure, ours, other, value, target, passed, form="{:.2f}"):
        if value is None:
            self.lines.append(f"| {figure} | – | – | not measured | {target} | – |")
        else:
            self.lines.append(f"| {figure} | {ours} | {other} | {form.format(value)} | {target} | {'pass' if passed else '**miss**'} |")

    def ratio(self, figure, ours, other, most=None, least=None, unit="{:,.0f}"):
        value = ours / other if ours is not None and other else None
        target = f"≤ {most:g}" if most is not None else f"≥ {least:g}"
        passed = value is not None and (value <= most if most is not None else value >= least)
        self.add(figure, unit.format(ours or 0), unit.format(other or 0), value, target, passed)

    def limit(self, figure, value, most=None, least=None, form="{:,.0f}"):
        target = f"≤ {most:,.0f}" if most is not None else f"≥ {least:,.0f}"
        passed = value is not None and (value <= most if most is not None else value >= least)
        self.add(figure, form.format(value or 0), "–", value, target, passed, form)


def targets(r):
    t = Targets()
    one = {"clients": 1, "batch": 100}
    for section, language in (("serve", "Rust"), ("python", "Python")):
        def p50(mode, store, section=section):
            return r.median("p50_us", section=section, mode=mode, store=store, **one)
        t.ratio(f"100 keys, one client, {language}: p50 of a ticket ÷ raw MGET, Redis (µs)", p50("ticket", "redis"), p50("raw-mget", "redis"), most=4)
        t.limit(f"the same, embedded: p50 (µs), {language}", p50("ticket", "embedded"), most=1000)
        name = "ADBC" if section == "python" else "Rust"
        for store in ("redis", "embedded"):
            t.ratio(f"prepared statement ({name}) ÷ ticket, {store}: p50 (µs)", p50("prepared", store), p50("ticket", store), most=3)

    def of(field, mode, store, batch):
        return r.median(field, section="serve", mode=mode, store=store, clients=16, batch=batch)
    t.ratio("16 clients, batch 100: keys/s ÷ Feast's server", of("keys_s", "ticket", "redis", 100), of("keys_s", "http", "feast", 100), least=25)
    t.ratio("16 clients, batch 100: keys/s ÷ raw MGET", of("keys_s", "ticket", "redis", 100), of("keys_s", "raw-mget", "redis", 100), least=0.3)
    t.ratio("16 clients, batch 1: lookups/s ÷ Feast's server", of("ops_s", "ticket", "redis", 1), of("ops_s", "http", "feast", 1), least=8)
    for store in ("redis", "embedded"):
        for batch in (100, 1):
            at = {"section": "open", "store": store, "batch": batch}
            t.ratio(f"p99 ÷ p50 at half of the peak, {store}, batch {batch} (µs)", r.median("p99_us", **at), r.median("p50_us", **at), most=4)
    for clients, batch in ((1, 100), (16, 1)):
        at = {"section": "views", "clients": clients, "batch": batch}
        t.ratio(f"1,000 views ÷ 10, {clients} client{'s' * (clients > 1)}, batch {batch}: p50 (µs)", r.median("p50_us", views=1000, **at),
                r.median("p50_us", views=10, **at), most=1.1)

    def load(field, what, store, engine="remige"):
        return r.median(field, section="load", engine=engine, store=store, what=what)

    def per_cpu(engine):
        rows, cpu = load("rows", "full", "redis", engine), load("cpu_s", "full", "redis", engine)
        return rows / cpu if cpu else None
    t.ratio("MATERIALIZE FULL to Redis: rows per CPU second ÷ Feast", per_cpu("remige"), per_cpu("feast"), least=20)
    rows, seconds = load("rows", "full", "embedded"), load("seconds", "full", "embedded")
    t.limit("MATERIALIZE FULL, embedded: rows/s", rows / seconds if seconds else None, least=200_000)
    for what, name in (("full", ""), ("big", ", the big one")):
        for store in ("redis", "embedded"):
            t.limit(f"MATERIALIZE FULL{name}, {store}: peak RSS (MB; {GB:,.0f} are 1 GB)", load("rss_mb", what, store), most=GB)
    for store in ("redis", "embedded"):
        t.ratio(f"MATERIALIZE of 1 % ÷ FULL, {store}: seconds", load("seconds", "incremental", store), load("seconds", "full", store), most=0.03,
                unit="{:.3f}")
    return t.lines


def servers(rec):
    return ", ".join(f"{k} {v:.1f}" for k, v in rec["servers_cpu_s"].items()) or "–"


def calls(r, section):
    lines = ["| call | store | clients | batch | runs | calls/s | keys/s | p50 µs | p90 µs | p99 µs | client CPU s | servers' CPU s | others |",
             "|---|---|---|---|---|---|---|---|---|---|---|---|---|"]
    keys = dict.fromkeys((x["clients"], x["batch"], x["store"], x["mode"]) for x in r.find(section=section))
    for clients, batch, store, mode in keys:
        found = r.find(section=section, clients=clients, batch=batch, store=store, mode=mode)
        m = {k: statistics.median(f[k] for f in found) for k in ("ops_s", "keys_s", "p50_us", "p90_us", "p99_us", "cpu_s")}
        lines.append(f"| {MODES[mode]} | {store} | {clients} | {batch} | {len(found)} | {m['ops_s']:,.0f} | {m['keys_s']:,.0f} | {m['p50_us']:,.0f} "
                     f"| {m['p90_us']:,.0f} | {m['p99_us']:,.0f} | {m['cpu_s']:.1f} | {servers(found[-1])} | {max(f['others'] for f in found):.0%} |")
    return lines


def open_loop(r):
    lines = ["| store | batch | peak, lookups/s | asked, lookups/s | answered | p50 µs | p90 µs | p99 µs | max µs |", "|---|---|---|---|---|---|---|---|---|"]
    for store, batch in dict.fromkeys((x["store"], x["batch"]) for x in r.find(section="open")):
        found = r.find(section="open", store=store, batch=batch)
        m = {k: statistics.median(f[k] for f in found) for k in ("peak", "rate", "ops_s", "p50_us", "p90_us", "p99_us", "max_us")}
        lines.append(f"| {store} | {batch} | " + " | ".join(f"{m[k]:,.0f}" for k in m) + " |")
    return lines


def views(r):
    lines = ["| registered views | clients | batch | runs | lookups/s | p50 µs | p99 µs |", "|---|---|---|---|---|---|---|"]
    for clients, batch, n in dict.fromkeys((x["clients"], x["batch"], x["views"]) for x in r.find(section="views")):
        found = r.find(section="views", clients=clients, batch=batch, views=n)
        m = {k: statistics.median(f[k] for f in found) for k in ("ops_s", "p50_us", "p99_us")}
        lines.append(f"| {n:,} | {clients} | {batch} | {len(found)} | " + " | ".join(f"{m[k]:,.0f}" for k in m) + " |")
    return lines


def pushes(r):
    lines = ["| store | clients | rows each | push.commit_interval | runs | INSERTs/s | rows/s | commits/s | p50 ms | p99 ms |",
             "|---|---|---|---|---|---|---|---|---|---|"]
    for store, clients, rows, interval in dict.fromkeys((x["store"], x["clients"], x["rows"], x["interval"]) for x in r.find(section="push")):
        found = r.find(section="push", store=store, clients=clients, rows=rows, interval=interval)
        m = {k: statistics.median(f[k] for f in found) for k in ("ops_s", "rows_s", "commits_s", "p50_us", "p99_us")}
        lines.append(f"| {store} | {clients} | {rows} | {interval} | {len(found)} | {m['ops_s']:,.0f} | {m['rows_s']:,.0f} | {m['commits_s']:,.0f} "
                     f"| {m['p50_us'] / 1e3:,.1f} | {m['p99_us'] / 1e3:,.1f} |")
    return lines


def loads(r):
    lines = ["| what | store | runs | rows | seconds | rows/s | CPU s | rows per CPU s | peak RSS MB | servers' CPU s |", "|---|---|---|---|---|---|---|---|---|---|"]
    names = {"full": "MATERIALIZE FULL", "incremental": "MATERIALIZE, 1 % changed", "big": "MATERIALIZE FULL"}
    every = [x for x in r.recs if x.get("section") == "load"]
    for engine, store, what in dict.fromkeys((x["engine"], x["store"], x["what"]) for x in every):
        found = r.find(section="load", engine=engine, store=store, what=what)
        m = {k: statistics.median(f[k] for f in found) for k in ("rows", "seconds", "cpu_s", "rss_mb")}
        name = "Feast's materialize" if engine == "feast" else names[what]
        lines.append(f"| {name} | {store} | {len(found)} | {m['rows']:,.0f} | {m['seconds']:.2f} | {m['rows'] / m['seconds']:,.0f} | {m['cpu_s']:.2f} "
                     f"| {m['rows'] / m['cpu_s']:,.0f} | {m['rss_mb']:,.0f} | {servers(found[-1])} |")
    return lines


def page(paths):
    r = Results(paths)
    if not r.sessions:
        raise SystemExit(f"no session in {', '.join(paths)}")
    s = r.sessions[-1]
    versions = ", ".join(f"{k} {v}" for k, v in s["versions"].items())
    dates = ", ".join(dict.fromkeys(f"{x['date']} at commit {x['commit']}" for x in r.sessions))
    lines = [
        "# The online store: measurements", "",
        "Written by `make bench-online`; do not edit. `benches/online/bench.py` says what is measured and how.", "",
        f"{dates}. {s['cores']} × {s['cpu']}, {s['memory_gib']} GiB, Linux {s['kernel']}; client, servers and stores share the cores. "
        f"{versions}, Python {s['python']}.", "",
        *[f"    {x['command']}" for x in r.sessions], "",
        f"One feature view of {s['rows']:,} entities, an INT64 key, 5 INT64 and 5 FLOAT64 features. Everything is warm, connections are open,",
        "requests are built before the clock starts; answers are decoded and counted. `ticket` is one RPC (`examples/lookup_ticket.py`), a prepared",
        "statement three. Raw MGET reads the very keys that Remige wrote. Feast serves the same rows from a Redis of its own, one worker (its",
        "default; more would share the same two cores). Before the runs 200 keys are compared value by value: all answer what is in the Parquet file.", "",
        "## Targets", "", "Medians; ratios of medians of runs that take turns.", "", *targets(r), ""]
    for title, section, rows in (("Closed loops, Rust client", "serve", calls), ("One Python client (redis-py with hiredis, pyarrow.flight, ADBC)", "python", calls)):
        if r.find(section=section):
            lines += [f"## {title}", "", *rows(r, section), ""]
    if r.find(section="open"):
        lines += ["## Half of the peak, on a schedule", "", "Requests are due at fixed instants; latency counts from there. 64 clients, tickets.", "", *open_loop(r), ""]
    if r.find(section="views"):
        lines += ["## Registered views", "", "Tickets, embedded store.", "", *views(r), ""]
    if r.find(section="push"):
        lines += ["## Small pushes", "", "Clients INSERT into an ONLINE push view by ADBC, one statement after the other; an answer means that the rows are stored",
                  "in the table and served. All rows are counted at the end. Statements that arrive together share a commit.", "", *pushes(r), ""]
    if any(x.get("section") == "load" for x in r.recs):
        lines += ["## Loading", "", "Seconds are those of the run, without the start of the process; CPU and memory those of the process. Redis works on top",
                  "of that (last column).", "", *loads(r), ""]
        ours = r.find(section="memory", engine="remige")
        rival = [x for x in r.find(section="load", engine="feast") if "bytes_per_row" in x]
        if ours:
            more = f", Feast's layout {rival[-1]['bytes_per_row']:.0f}" if rival else ""
            lines += [f"Memory of Redis per entity: {ours[-1]['bytes_per_row']:.0f} bytes{more}.", ""]
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "notes.md")) as notes:
        lines.append(notes.read().rstrip("\n"))
    return "\n".join(lines) + "\n"
