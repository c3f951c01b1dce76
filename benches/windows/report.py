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


# What the figures do not say by themselves.
NOTES = """## What they mean

- Memory. Ours holds the labels of a chunk with their answers: 1 M labels with 16 answers of 9 bytes are 144 MB, their rows and index 50 MB,
  the process itself 90 MB. That is less than any rival takes and more than the aim; with less memory labels are joined in chunks, which
  read the events once more each.
- A sum of nothing is NULL here and in DuckDB, 0 in Polars: the comparison takes them for the same.
- Chronon's windows move in tiles, too (its sawtooth: 5 minutes, 1 hour or 1 day by length), online and offline. Feast computes an
  aggregation when the stream is read, and its tiling moves in hops of the stream's: what is served is as of the key's last event.
""".splitlines()


def load(paths):
    sessions, runs, serving = [], [], []
    for path in paths:
        with open(path) as f:
            for line in f:
                rec = json.loads(line)
                kind = sessions if "session" in rec else serving if "serving" in rec else runs
                kind.append(rec.get("session", rec))
    return sessions, runs, serving


def verdict(value, most):
    return f"{value:.2f} (≤ {most}: {'pass' if value <= most else '**miss**'})"


def page(paths):
    sessions, runs, serving = load(paths)
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
            # runs that other processes disturbed are left out where there are quieter ones
            ok = [r for r in ok if r["others"] <= 0.1] or ok
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
    if serving:
        lines += ["", "## Online", "", "`benches/windows/serving.py`, medians; the windows of W-M over its events.", "",
                  "| what | ours | beside | ours ÷ that |", "|---|---|---|---|"]
        lines += [f"| {r['serving']} | {r['ours']:.3g} | {r['yardstick']:.3g}, {r['against']} | {verdict(r['ours'] / r['yardstick'], r['most'])} |" for r in serving]
    lines += ["", *NOTES, "", "## Measurements", "", "Medians.", "", "| data | engine | wall, s | CPU, s | peak RSS, MB | runs | answer |", "|---|---|---|---|---|---|---|", *table, ""]
    return "\n".join(lines)
