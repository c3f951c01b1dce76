#!/usr/bin/env python3
"""The Grafana dashboard: a form that Grafana imports, panels that do not overlap, and no metric that the
program does not know.

    dashboard_check.py
"""
import itertools
import json
import os
import re

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")


def main():
    with open(os.path.join(ROOT, "docs", "grafana", "remige.json")) as f:
        board = json.load(f)
    with open(os.path.join(ROOT, "src", "telemetry.rs")) as f:
        known = set(re.findall(r'"(remige_\w+)"', f.read()))
    assert board["schemaVersion"] >= 30 and board["title"] and board["uid"]
    variables = {v["name"]: v for v in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource", variables
    panels = board["panels"]
    assert len({p["id"] for p in panels}) == len(panels), "panels share an id"
    for a, b in itertools.combinations([p["gridPos"] | {"of": p["title"]} for p in panels], 2):
        apart = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"] or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert apart, f"{a['of']} and {b['of']} overlap"
    texts = [v["definition"] for v in variables.values() if v["type"] == "query"]
    for p in panels:
        assert p["gridPos"]["x"] + p["gridPos"]["w"] <= 24, p["title"]
        if p["type"] == "row":
            continue
        assert p["fieldConfig"]["defaults"]["unit"], f"{p['title']} has no unit"
        assert p["datasource"]["uid"] == "${datasource}" and p["targets"], p["title"]
        texts += [t["expr"] for t in p["targets"]]
    used = set()
    for text in texts:
        assert text.count("(") == text.count(")") and text.count("{") == text.count("}"), text
        assert set(re.findall(r"\$(\w+)", text)) <= set(variables) | {"__rate_interval"}, text
        for name in re.findall(r"remige_\w+", text):
            # the sum and the count of a summary
            used.add(name if name in known else re.sub(r"_(sum|count)$", "", name))
    assert used <= known, f"src/telemetry.rs does not name {', '.join(sorted(used - known))}"
    print(f"dashboard_check: passed, {len(panels)} panels, {len(used)} metrics")


if __name__ == "__main__":
    main()
