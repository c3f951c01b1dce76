#!/usr/bin/env python3
"""Functions that users know from elsewhere answer what DuckDB answers, wherever both have the name.

    functions_check.py REMIGE [--show]
"""
import json
import subprocess
import sys
import tempfile

import duckdb

ROWS = """(VALUES
    (1, 'a', CAST(1.5 AS DOUBLE), TIMESTAMP '2024-02-29 23:59:59.999999', DATE '2024-02-29', '{"a": {"b": [10, "x", null]}, "n": 7, "t": true}'),
    (2, 'b', CAST(2.5 AS DOUBLE), TIMESTAMP '1969-12-31 23:59:59.5', DATE '1969-12-28', '{"a": {"b": [11]}, "n": 1.5, "s": "it''s"}'),
    (3, 'a', CAST(NULL AS DOUBLE), TIMESTAMP '2023-01-01 00:00:00', DATE '2023-01-01', '[1, 2]'),
    (4, 'c', CAST(2.5 AS DOUBLE), NULL, NULL, NULL),
    (5, 'a', CAST(-0.5 AS DOUBLE), TIMESTAMP '2024-12-30 12:34:56.789', DATE '2024-12-30', '{"n": -3}')
  ) r(i, s, x, t, d, j)"""

# Expressions of one row.
SCALARS = """
date_diff('year', t, TIMESTAMP '2025-01-01')
date_diff('quarter', t, TIMESTAMP '2025-01-01')
date_diff('month', t, TIMESTAMP '2025-01-01')
date_diff('day', t, TIMESTAMP '2025-01-01')
date_diff('hour', t, TIMESTAMP '2025-01-01')
date_diff('minute', t, TIMESTAMP '2025-01-01')
date_diff('second', t, TIMESTAMP '2025-01-01')
date_diff('millisecond', t, TIMESTAMP '2025-01-01')
date_diff('microsecond', t, TIMESTAMP '2025-01-01')
date_diff('decade', t, TIMESTAMP '2035-01-01')
datediff('day', d, DATE '2025-01-01')
date_add(d, INTERVAL '3 days')
year(t)
quarter(t)
month(t)
week(t)
weekofyear(t)
day(t)
dayofmonth(t)
dayofyear(t)
dayofweek(t)
isodow(t)
hour(t)
minute(t)
second(t)
year(d)
dayofweek(d)
dayname(t)
monthname(d)
epoch(t)
epoch_ms(date_trunc('second', t))
epoch_us(t)
last_day(t)
last_day(d)
time_bucket(INTERVAL '5 minutes', t)
time_bucket(INTERVAL '1 week', t)
time_bucket(INTERVAL '10 days', t)
time_bucket(INTERVAL '1 month', t)
time_bucket(INTERVAL '2 years', t)
time_bucket(INTERVAL '1 hour', t, TIMESTAMP '2020-01-01 00:30:00')
strftime(t, '%Y-%m-%d %H:%M:%S.%f')
strftime(t, '%j %A %b %I %p %y')
strptime(strftime(t, '%d/%m/%Y %H.%M.%S'), '%d/%m/%Y %H.%M.%S')
strptime(strftime(t, '%Y%m%d %H%M%S.%f'), '%Y%m%d %H%M%S.%f')
CAST(age(TIMESTAMP '2024-03-01', t) AS VARCHAR) IS NULL
if(x > 2, 'big', 'small')
ifnull(x, 7.0)
mod(i, 3)
mod(-i, 3)
len(s)
ucase(s)
lcase(upper(s))
prefix(s, 'a')
suffix(s, 'a')
starts_with(s, 'a')
string_split('a,b,' || s, ',')
str_split('a,b,' || s, ',')
split('a,b,' || s, ',')
regexp_matches(s || '1', '[ab][0-9]')
regexp_extract(s || '12', '[0-9]+')
regexp_extract(s || '12', '[xyz]+')
regexp_extract(s || '12', '([a-z])([0-9])', 2)
regexp_extract(s || '12', '([a-z])([0-9])', 0)
list_transform([i, i + 1], e -> e * 10)
list_filter([i, i + 1, 3], e -> e > 2)
list_transform(list_filter([1, 2, 3], e -> e <> i), e -> e + i)
list_transform(['{"k": 1}', '{"k": 2}'], e -> (e ->> 'k'))
j -> 'a' -> 'b' -> 0
j ->> 'n'
j ->> 's'
(j ->> 'n') = '7'
(j -> 'a') IS NULL
CAST(j ->> 'n' AS DOUBLE) + 1
json_extract(j, '$.a.b[0]')
json_extract(j, '$.a')
json_extract(j, '/a/b/1')
json_extract_string(j, '$.a.b[1]')
json_extract_string(j, '$.a.b[2]')
json_extract_string(j, 'n')
list_sum([i, 2])
list_contains([1, 2], i)
greatest(i, 3)
""".strip().splitlines()

# Aggregates, over all rows and per s.
AGGREGATES = """
max_by(i, x + i * 0.001)
min_by(i, t)
arg_max(s, i)
arg_min(s, i)
arg_max(x, i)
arg_min(x, i)
max_by(s, i) FILTER (WHERE i < 4)
mode(s)
mode(x) FILTER (WHERE x > 2)
count_if(x > 2)
countif(x > 2)
list(i ORDER BY i DESC)
listagg(s, '-' ORDER BY i)
group_concat(s, '-' ORDER BY i)
string_agg(DISTINCT s, '-' ORDER BY s)
histogram(s)
histogram(i)
variance(i)
median(x)
any_value(s) IS NULL
first(i ORDER BY i DESC)
last(i ORDER BY i DESC)
bool_or(x > 2)
approx_count_distinct(s)
quantile_cont(x, 0.5)
""".strip().splitlines()


def remige(binary, folder, query):
    done = subprocess.run([binary, "sql", "-w", folder, "--format", "json", "-c", query], capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        return done.stderr.strip()
    return [list(json.loads(line).values()) for line in done.stdout.splitlines()]


def plain(v):
    """One spelling of a value of both."""
    if isinstance(v, bool) or v is None:
        return v
    if isinstance(v, dict):
        return {str(k): plain(x) for k, x in v.items()}
    if isinstance(v, (list, tuple)):
        return [plain(x) for x in v]
    if isinstance(v, (int, float)):
        return round(float(v), 9)
    text = str(v).replace("T", " ").removesuffix("Z").removesuffix("+00:00")
    # an instant of a date, and JSON with and without spaces
    text = text.removesuffix(" 00:00:00").replace(", ", ",").replace(": ", ":").replace("\": ", "\":")
    return text.rstrip("0") if "." in text and text[:4].isdigit() and text[4:5] == "-" else text


def main():
    binary, show = sys.argv[1], "--show" in sys.argv
    duck = duckdb.connect()
    duck.sql("SET TimeZone = 'UTC'")
    duck.sql("SET lambda_syntax = 'ENABLE_SINGLE_ARROW'")
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        queries = [(e, f"SELECT {e} FROM {ROWS} ORDER BY i") for e in SCALARS]
        queries += [(e, f"SELECT s, {e} AS v FROM {ROWS} GROUP BY s ORDER BY s") for e in AGGREGATES]
        queries += [(e + " of all", f"SELECT {e} AS v FROM {ROWS}") for e in AGGREGATES]
        for name, query in queries:
            mine = remige(binary, folder, query)
            try:
                theirs = [list(r) for r in duck.execute(query).fetchall()]
            except duckdb.Error as e:
                theirs = str(e)
            if isinstance(mine, str) or plain(mine) != plain(theirs):
                wrong += 1
                print(f"FAIL {name}\n  remige: {mine if isinstance(mine, str) else plain(mine)}\n  duckdb: {plain(theirs)}")
            elif show:
                print(f"ok   {name}: {plain(mine)}")
    print(f"functions_check: {len(queries) - wrong} of {len(queries)} agree with DuckDB {duckdb.__version__}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
