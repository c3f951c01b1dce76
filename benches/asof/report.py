"""Tables of a benchmark's results."""
import collections
import json
import statistics

# preset: wall from raw Parquet, wall from feature views, peak memory; each ours / DuckDB, at most
TARGETS = {
    "S": (0.6, 0.5, 0.6), "M": (0.5, 0.4, 0.25), "MZ": (0.5, 0.4, 0.25), "L": (0.45, 0.35, 0.15),
    "XL": (0.9, 0.7, 0.6), "L10": (0.35, 0.25, 0.1),
}
# Times of other keys against our own time with int64 keys.
LIKE_M, LIKE_M_TARGET = ("MSTR", "MCOMP"), 1.4
PRESETS = {
    "S": "100 k labels × 1 M rows", "M": "1 M labels × 10 M rows", "MZ": "M, Zipf 1.1 keys", "MS": "M, file sorted by key and time",
    "MSTR": "M, string keys", "MCOMP": "M, composite keys (int64 and string)", "MT": "M, four rows per key and time, created_ts decides",
    "MH": "M, one key has half of labels and rows", "L": "1 M labels × 3 views × 10 M rows",
    "L10": "1 M labels × 10 views × 10 M rows, 3 features each", "XL": "10 M labels × 10 M rows, 4 features",
    "F50": "1 M labels × 50 M rows, 4 features",
}
LIMIT_MB = {"512MB": 512 * 1e6 / 2**20, "1GB": 1e9 / 2**20}


class Cell:
    """One engine on one data set: medians over its quiet runs."""

    def __init__(self, recs, max_others):
        ok = [r for r in recs if r["status"] == "ok"]
        self.check = next((r["check"] for r in ok if "check" in r), None)
        self.ordered = next((r["ordered"] for r in ok if "ordered" in r), None)
        self.failed = None if ok else recs[-1]["status"]
        quiet = [r for r in ok if r["others"] <= max_others]
        self.noisy = not quiet
        self.runs = quiet or ok or recs[-1:]
        for k in ("wall_s", "cpu_s", "rss_mb", "anon_mb"):
            setattr(self, k, statistics.median(r[k] for r in self.runs))
        inner = [r["engine_s"] for r in self.runs if r["engine_s"]]
        self.engine_s = statistics.median(inner) if inner else None
        self.others = max(r["others"] for r in self.runs)


def load(paths, max_others):
    sessions, setups, recs = [], {}, collections.OrderedDict()
    for path in paths:
        with open(path) as f:
            for line in f:
                rec = json.loads(line)
                if "session" in rec:
                    sessions.append(rec["session"])
                elif "setup" in rec:
                    setups[rec["setup"]] = rec
                else:
                    recs.setdefault(rec["data"], collections.OrderedDict()).setdefault(rec["engine"], []).append(rec)
    cells = {d: {e: Cell(r, max_others) for e, r in by.items()} for d, by in recs.items()}
    return sessions, setups, cells


def answer(cell, reference):
    if cell.check is None or reference is None:
        return "–"
    if "rows" not in cell.check:
        return f"**{cell.check['error']}**"
    if cell.check == reference:
        return "same"
    return f"**DIFFERS ({cell.check['rows'] - reference['rows']:+,} rows)**"


def verdict(value, target):
    return f"{value:.2f} (≤ {target:g}: {'pass' if value <= target else '**miss**'})" if target else f"{value:.2f}"


def targets(cells):
    lines = ["| data | wall, raw Parquet | wall, feature views | peak RSS, raw | peak RSS, views | CPU, raw | CPU, views | ours ÷ bare scan, raw | views |",
             "|---|---|---|---|---|---|---|---|---|"]
    for name, by in cells.items():
        duck, scan, ours = by.get("duckdb"), by.get("scan"), [by.get("remige"), by.get("remige-views")]
        if duck is None or not any(ours):
            continue
        raw, views, memory = TARGETS.get(name, (None, None, None))
        row = {}
        for mode, cell, wall in (("raw", ours[0], raw), ("views", ours[1], views)):
            if cell is None or cell.failed or duck.failed:
                why = "–" if cell is None else "**failed**" if cell.failed else "DuckDB failed"
                row[mode] = [why] * 4
                continue
            right = answer(cell, duck.check) == "same"
            noisy = " (noisy)" if cell.noisy or duck.noisy else ""
            row[mode] = [verdict(cell.wall_s / duck.wall_s, wall) + noisy + ("" if right else " **wrong answer**"),
                         verdict(cell.rss_mb / duck.rss_mb, memory), f"{cell.cpu_s / duck.cpu_s:.2f}",
                         f"{cell.wall_s / scan.engine_s:.1f}" if scan and not scan.failed else "–"]
        columns = [row[m][i] for i in range(4) for m in ("raw", "views")]
        lines.append(f"| {name} | " + " | ".join(columns) + " |")
    return lines


def keys_and_limits(cells):
    lines = []
    base = cells.get("M", {})
    for name in LIKE_M:
        for mode in ("remige", "remige-views"):
            a, b = cells.get(name, {}).get(mode), base.get(mode)
            if a and b and not a.failed and not b.failed:
                lines.append(f"- {name} against M, {mode}: wall {verdict(a.wall_s / b.wall_s, LIKE_M_TARGET)}, CPU {a.cpu_s / b.cpu_s:.2f}")
    for name, by in cells.items():
        reference = by["duckdb"].check if "duckdb" in by else None
        for engine, cell in by.items():
            mode, _, limit = engine.partition("@")
            if not limit:
                continue
            if cell.failed:
                lines.append(f"- {name}, {mode} with a memory limit of {limit}: **failed: {cell.failed[:200]}**")
                continue
            fits = ""
            if name == "F50":
                fits = f", under {limit}: {'pass' if cell.rss_mb <= LIMIT_MB[limit] else '**miss**'}"
            lines.append(f"- {name}, {mode} with a memory limit of {limit}: {cell.wall_s:.2f} s, peak RSS {cell.rss_mb:.0f} MB{fits}, "
                         f"answer {answer(cell, reference)}")
    return lines


def measurements(cells):
    lines = ["| data | engine | runs | wall s | engine s | CPU s | peak RSS MB | peak anon MB | others | rows | answer |",
             "|---|---|---|---|---|---|---|---|---|---|---|"]
    for name, by in cells.items():
        reference = next((c.check for c in by.values() if c.check), None)
        for engine, c in by.items():
            head = f"| {name} | {engine} | {len(c.runs)} | {c.wall_s:.2f} | {f'{c.engine_s:.2f}' if c.engine_s else '–'} | {c.cpu_s:.2f} " \
                   f"| {c.rss_mb:.0f} | {c.anon_mb:.0f} | {c.others:.0%}{' (noisy)' if c.noisy and not c.failed else ''} "
            if c.failed:
                lines.append(head + f"| – | **{c.failed[:120].replace('|', '/').replace(chr(10), ' ')}** |")
            else:
                rows = f"{c.check['rows']:,}" if c.check and "rows" in c.check else "–"
                order = ", label order" if c.ordered else ""
                lines.append(head + f"| {rows} | {answer(c, reference)}{order} |")
    return lines


def page(paths, max_others):
    sessions, setups, cells = load(paths, max_others)
    s = sessions[-1]
    versions = ", ".join(f"{k} {v}" for k, v in s["versions"].items())
    lines = [
        "# Point-in-time joins: measurements", "",
        "Written by `make bench-asof`; do not edit. `benches/asof/bench.py` says what is measured and how.", "",
        f"{s['date']}, commit {s['commit']}. {s['cores']} × {s['cpu']}, {s['memory_gib']} GiB, Linux {s['kernel']}, {s['threads']} threads, "
        f"page cache warm. {versions}, Python {s['python']}.", "",
        *[f"    {x['command']}" for x in sessions], "",
        "`remige` reads the raw Parquet files as external tables, `remige-views` the same rows stored as feature views; the other",
        "engines read the raw files. Each writes one Parquet file (snappy). Wall includes the start of the process: of Remige with",
        "declaring its tables (raw), of the Python engines with their imports (\"engine s\" is without). `scan` decodes the columns that the join must",
        "read with pyarrow and drops them (its engine s are the bare scan, a yardstick and no floor). Data: 100,000 keys, 90 days, TTL 30 days, 10 numeric and 2 string features unless said otherwise:", "",
        *[f"- {n}: {PRESETS[n]}" for n in cells if n in PRESETS], "",
        "## Ours ÷ DuckDB", "", "Medians of runs that take turns in one session; the target in brackets.", "", *targets(cells), "",
        *keys_and_limits(cells), "", "## Measurements", "",
        f"Medians of the runs in which other processes took at most {max_others:.0%} of the machine (else \"noisy\").", "",
        *measurements(cells), ""]
    if setups:
        lines += ["## REFRESH … FULL of the views (before the runs, once)", "", "| data | rows | seconds | rows/s | MB written |", "|---|---|---|---|---|"]
        lines += [f"| {n} | {r['rows']:,} | {r['seconds']:.1f} | {r['rows'] / r['seconds']:,.0f} | {r['bytes'] / 1e6:,.0f} |" for n, r in setups.items()]
        lines.append("")
    return "\n".join(lines)
