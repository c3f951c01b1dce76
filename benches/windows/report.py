"""The page of bench.py's results."""
import json
import statistics

# data: wall of ours ÷ the fastest rival, peak memory of ours ÷ the same rival's
TARGETS = {"W-M": (0.35, 0.2), "W-Z": (0.35, 0.2), "W-X": (0.6, 0.3), "W-10": (0.7, 0.5), "W-10X": (0.7, 0.5)}
WORDS = {
    "W-S": "100 k labels × 1 M events, four windows",
    "W-M": "1 M labels × 10 M events, 100 k keys, 90 days; count, sum, avg, max over 1 hour, 1 day, 7 and 30 days, in steps",
    "W-Z": "W-M, Zipf 1.1 keys",
    "W-X": "W-M, exact windows",
    "W-10": "10 M labels × 10 M events, count over 30 days, in steps",
    "W-10X": "W-10, exact",
}


def load(paths):
    sessions, runs = [], []
    for path in paths:
        with open(path) as f:
            for line in f:
                rec = json.loads(line)
                sessions.append(rec["session"]) if "session" in rec else runs.append(rec)
    return sessions, runs


def verdict(value, most):
    return f"{value:.2f} (≤ {most}: {'pass' if value <= most else '**miss**'})"


def page(paths):
    sessions, runs = load(paths)
    s = sessions[-1]
    versions = ", ".join(f"{k} {v}" for k, v in s["versions"].items())
    lines = ["# Windowed aggregates: measurements", "", "Written by `make bench-windows`; do not edit. `benches/windows/bench.py` says what is measured and how.", "",
             f"{s['date']}, commit {s['commit']}. {s['cores']} × {s['cpu'].strip()}, {s['memory_gib']} GiB, Linux {s['kernel']}, {s['threads']} threads, "
             f"page cache warm. {versions}, Python {s['python']}.", ""]
    lines += [f"    {x['command']}" for x in sessions]
    names = list(dict.fromkeys(r["data"] for r in runs))
    lines += ["", *[f"- {n}: {WORDS[n]}" for n in names], "",
              "`remige` reads a feature view, the others the raw Parquet files, labels all of them. `duckdb-union`: window functions over labels and",
              "events in one relation; `duckdb-range`: a join of each label with its events; `duckdb-sums`: running counts and ASOF joins; `polars`: rolling",
              "aggregates; `datafusion`: the windows of the engine below Remige, through the same program. Rivals compute the same steps, by the rule as",
              "`benches/windows/data.py` writes it down once more.", "", "## Ours ÷ the fastest rival", "",
              "| data | fastest rival | wall | peak RSS |", "|---|---|---|---|"]
    table = []
    for n in names:
        engines = list(dict.fromkeys(r["engine"] for r in runs if r["data"] == n))
        medians = {}
        for e in engines:
            mine = [r for r in runs if r["data"] == n and r["engine"] == e]
            ok = [r for r in mine if r["status"] == "ok"]
            check = next((r["check"] for r in mine if "check" in r), {})
            answer = "" if e == "remige" else ("same" if check.get("differ") == 0 else f"{check.get('differ', '?')} differ") if ok else ""
            if ok:
                m = {k: statistics.median(r[k] for r in ok) for k in ("wall_s", "cpu_s", "rss_mb")}
                medians[e] = m
                table.append(f"| {n} | {e} | {m['wall_s']:.2f} | {m['cpu_s']:.2f} | {m['rss_mb']:.0f} | {len(ok)} | {answer} |")
            else:
                table.append(f"| {n} | {e} | – | – | – | 0 | {mine[0]['status'].splitlines()[0][:120]} |")
        rivals = {e: m for e, m in medians.items() if not e.startswith("remige")}
        if rivals and "remige" in medians:
            best = min(rivals, key=lambda e: rivals[e]["wall_s"])
            wall = medians["remige"]["wall_s"] / rivals[best]["wall_s"]
            rss = medians["remige"]["rss_mb"] / rivals[best]["rss_mb"]
            t = TARGETS.get(n)
            lines.append(f"| {n} | {best} | {verdict(wall, t[0]) if t else f'{wall:.2f}'} | {verdict(rss, t[1]) if t else f'{rss:.2f}'} |")
    lines += ["", "## Measurements", "", "Medians.", "", "| data | engine | wall, s | CPU, s | peak RSS, MB | runs | answer |", "|---|---|---|---|---|---|---|", *table, ""]
    return "\n".join(lines)
