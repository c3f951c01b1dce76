#!/usr/bin/env python3
"""Reads a Feast repository and prints the SQL that declares the same in Remige.

    feast_to_sql.py REPOSITORY > warehouse.sql

REPOSITORY is a folder with feature_store.yaml, after `feast apply`. It runs where Feast is installed (pip install feast).
What has no SQL, such as a transformation in Python, is listed at the end as a comment with what to write, and counted on
stderr; the program then ends with 3. Nothing is guessed and nothing is left out.
"""
import os
import re
import sys
from datetime import timedelta

TYPES = {"INT32": "INT", "INT64": "BIGINT", "FLOAT32": "FLOAT", "FLOAT64": "DOUBLE", "STRING": "VARCHAR", "BOOL": "BOOLEAN", "BYTES": "BYTEA",
         "UNIX_TIMESTAMP": "TIMESTAMP", "UUID": "VARCHAR", "TIME_UUID": "VARCHAR", "JSON": "VARCHAR", "DECIMAL": "DECIMAL",
         "PDF_BYTES": "BYTEA", "IMAGE_BYTES": "BYTEA", "ZONED_TIMESTAMP": "TIMESTAMP"}
# Feast's names of aggregations
FUNCTIONS = {"sum": "sum", "mean": "avg", "avg": "avg", "min": "min", "max": "max", "count": "count", "std": "stddev_samp", "var": "var_samp",
             "count_distinct": "count", "first": "first_value", "last": "last_value"}
UNITS = [("days", 86400), ("hours", 3600), ("minutes", 60), ("seconds", 1)]


def name(text):
    """A name as SQL writes it."""
    return text if re.fullmatch(r"[a-z_][a-z0-9_]*", text) else '"' + text.replace('"', '""') + '"'


def text(value):
    return "'" + str(value).replace("'", "''") + "'"


def length(delta):
    seconds = delta.total_seconds()
    for unit, size in UNITS:
        if seconds >= size and seconds % size == 0:
            return f"{int(seconds // size)} {unit}"
    return f"{int(delta / timedelta(microseconds=1))} microseconds"


def about(thing):
    """COMMENT, OWNER and TAGS, each on a line of its own."""
    out = []
    if getattr(thing, "description", ""):
        out.append(f"  COMMENT {text(thing.description)}")
    if getattr(thing, "owner", ""):
        out.append(f"  OWNER {text(thing.owner)}")
    tags = {k: v for k, v in (getattr(thing, "tags", None) or {}).items()}
    if tags:
        out.append("  TAGS (" + ", ".join(f"{name(k)} = {text(v)}" for k, v in tags.items()) + ")")
    return out


class Left(Exception):
    """What has no SQL: what it is, and what to write."""


class Translation:
    def __init__(self, store, folder):
        from feast.feature_view import DUMMY_ENTITY_NAME
        registry, project = store.registry, store.project
        self.folder, self.dummy = folder, DUMMY_ENTITY_NAME
        self.entities = [e for e in registry.list_entities(project) if e.name != DUMMY_ENTITY_NAME]
        self.views = list(registry.list_feature_views(project))
        self.streams = list(registry.list_stream_feature_views(project))
        self.on_demand = list(registry.list_on_demand_feature_views(project))
        self.services = list(registry.list_feature_services(project))
        self.taken = {v.name for v in self.views + self.streams + self.on_demand} | {s.name for s in self.services}
        self.tables, self.declared, self.sql, self.left = {}, {}, [], []

    def run(self):
        self.each("entity", self.entities, self.entity)
        self.each("feature view", self.views, self.view)
        self.each("stream feature view", self.streams, self.stream)
        for v in self.on_demand:
            self.left.append(on_demand(v))
        self.each("feature service", self.services, self.service)
        return "\n".join(self.sql + self.leftovers())

    def each(self, kind, things, translate):
        for thing in things:
            try:
                self.sql += [*translate(thing), ""]
            except Left as why:
                self.left.append((f"{kind} {thing.name}", *why.args))

    def leftovers(self):
        if not self.left:
            return []
        out = ["-- What has no SQL:"]
        for what, why, *write in self.left:
            out += ["--", f"-- {what}: {why}"]
            out += [f"--   {line}".rstrip() for part in write for line in part.split("\n")]
        return out + [""]

    def type_of(self, field, where):
        base = getattr(field.dtype, "base_type", None)
        found = TYPES.get(str(getattr(base or field.dtype, "name", base or field.dtype)).upper())
        if found is None:
            raise Left(f"{where}: the type {field.dtype} of {field.name} has no column type here", "store its parts as columns, or its JSON as VARCHAR")
        return found + ("[]" if base is not None else "")

    def entity(self, e):
        kinds = {"INT32": "INT", "INT64": "BIGINT", "STRING": "VARCHAR", "BYTES": "BYTEA", "BOOL": "BOOLEAN", "UNIX_TIMESTAMP": "TIMESTAMP"}
        kind = kinds.get(e.value_type.name)
        if kind is None:
            # Feast leaves it open, and keeps the type with the views
            found = {self.type_of(c, v.name) for v in self.views + self.streams for c in v.entity_columns if c.name == e.join_key}
            if len(found) != 1:
                raise Left(f"the type of its key {e.join_key} is {' or '.join(sorted(found)) or 'nowhere said'}",
                           f"CREATE ENTITY {name(e.name)} KEY ({name(e.join_key)} BIGINT);")
            kind = found.pop()
        if kind in ("FLOAT", "DOUBLE"):
            raise Left(f"its key {e.join_key} is a float, which is no key here", f"CREATE ENTITY {name(e.name)} KEY ({name(e.join_key)} DECIMAL(p, s));")
        self.declared[e.name] = e
        lines = [f"CREATE ENTITY {name(e.name)} KEY ({name(e.join_key)} {kind})", *about(e)]
        return end(lines)

    def table(self, source):
        """The table of a batch source, declared on first use."""
        kind = type(source).__name__
        if kind != "FileSource":
            raise Left(f"its source {source.name} is a {kind}, which is not read here",
                       "write its rows to Parquet or Delta, then CREATE EXTERNAL TABLE … STORED AS PARQUET | DELTA LOCATION '…'")
        path = source.path if "://" in source.path else os.path.normpath(os.path.join(self.folder, source.path))
        if path in self.tables:
            return self.tables[path]
        form = type(source.file_format).__name__ if source.file_format else "ParquetFormat"
        stored = {"ParquetFormat": "PARQUET", "DeltaFormat": "DELTA"}.get(form)
        if stored is None:
            raise Left(f"its source {source.name} has the format {form}, which is not read here", "write its rows to Parquet, Delta, CSV or JSON")
        table = source.name or os.path.splitext(os.path.basename(path))[0]
        if "/" in table or "." in table:
            table = re.sub(r"\W+", "_", os.path.splitext(os.path.basename(path.rstrip("/")))[0])
        while table in self.taken:
            table += "_source"
        self.taken.add(table)
        self.tables[path] = table
        self.sql += [f"CREATE EXTERNAL TABLE {name(table)} STORED AS {stored} LOCATION {text(path)};", ""]
        return table

    def keys_of(self, v):
        if v.entities in ([], [self.dummy]):
            raise Left("it has no entity", "add a column that is the same in all rows, and an entity of it: CREATE ENTITY everything KEY (one BIGINT);",
                       f"CREATE FEATURE VIEW {name(v.name)} ENTITY everything … AS SELECT 1 AS one, …")
        missing = [e for e in v.entities if e not in self.declared]
        if missing:
            raise Left(f"its entity {', '.join(missing)} is not declared (see there)", "declare the entity, then run this program again")
        return [self.declared[e].join_key for e in v.entities]

    def column(self, field, typed_for):
        """A feature in the list of a view, with its type where the view has no query to give it."""
        parts = [name(field.name)] + ([self.type_of(field, typed_for)] if typed_for else [])
        return " ".join(parts + [a.strip() for a in about(field)])

    def head(self, v, columns, time, created):
        word = "ENTITY" if len(v.entities) == 1 else "ENTITIES"
        lines = [f"CREATE FEATURE VIEW {name(v.name)}"]
        if columns:
            lines.append("  (" + ",\n   ".join(columns) + ")")
        lines += [f"  {word} {', '.join(name(e) for e in v.entities)}", f"  EVENT TIMESTAMP {name(time)}"]
        if created:
            lines.append(f"  CREATED TIMESTAMP {name(created)}")
        return lines

    def view(self, v):
        if type(v).__name__ == "BatchFeatureView" or getattr(v, "feature_transformation", None) is not None:
            raise Left("it is computed by a transformation in Python", "write it as the query of the view: CREATE FEATURE VIEW … AS SELECT …",
                       python_of(getattr(v, "feature_transformation", None)))
        keys = self.keys_of(v)
        pushed = getattr(v, "stream_source", None)
        if pushed is not None and type(pushed).__name__ != "PushSource":
            raise Left(f"its source {pushed.name} is a {type(pushed).__name__}", "let a consumer INSERT its rows: declare a push view without AS")
        batch = v.batch_source
        time, created = batch.timestamp_field, batch.created_timestamp_column
        if not time:
            raise Left(f"its source {batch.name} names no timestamp", "name the column that says when a row holds: EVENT TIMESTAMP column")
        table = self.table(batch)
        mapped = {new: old for old, new in (batch.field_mapping or {}).items()}
        read = lambda column: name(mapped.get(column, column)) + (f" AS {name(column)}" if column in mapped else "")
        listed = v.features if pushed is not None else [f for f in v.features if f.description or f.tags]
        columns = [self.column(f, v.name if pushed is not None else None) for f in listed]
        lines = self.head(v, columns, time, created)
        if v.ttl:
            lines.append(f"  TTL INTERVAL '{length(v.ttl)}'")
        lines += ["  ONLINE"] * bool(v.online) + about(v)
        stamps = [read(c) for c in (time, created) if c]
        features = [f"CAST({name(mapped.get(f.name, f.name))} AS {self.type_of(f, v.name)}) AS {name(f.name)}" for f in v.features]
        self.declared[v.name] = v
        query = f"SELECT {', '.join([*map(read, keys), *stamps, *features])}\n   FROM {name(table)}"
        if pushed is None:
            return end([*lines, f"AS {query}"])
        # what is pushed goes into a view without a query; the rows so far come from the batch source
        into = ", ".join(map(name, [*keys, *[c for c in (time, created) if c], *[f.name for f in v.features]]))
        return end(lines) + [f"INSERT INTO {name(v.name)} ({into})", *end([query])]

    def stream(self, v):
        if v.udf is not None or getattr(v, "feature_transformation", None) is not None:
            raise Left("it is computed by a transformation in Python", "write it as the query of the view: CREATE FEATURE VIEW … AS SELECT …",
                       python_of(getattr(v, "feature_transformation", None)) or v.udf_string or "")
        if not v.aggregations:
            return self.view(v)
        keys, batch = self.keys_of(v), v.batch_source
        if batch is None:
            raise Left("it has no batch source, so that its past is nowhere", "declare a push view: CREATE FEATURE VIEW … AS SELECT … FROM PUSHED (…)")
        time = v.timestamp_field or batch.timestamp_field
        table = self.table(batch)
        calls = []
        for a in v.aggregations:
            function = FUNCTIONS.get(a.function)
            if function is None or not a.time_window:
                raise Left(f"its aggregation {a.function} of {a.column} over {a.time_window} has no window here", "see the aggregates of docs/windows.md")
            feature = a.name or f"{a.function}_{a.column}_{int(a.time_window.total_seconds())}s"
            distinct = "DISTINCT " if a.function == "count_distinct" else ""
            every = f" EVERY '{length(a.slide_interval)}'" if a.slide_interval and a.slide_interval < a.time_window else ""
            calls.append(f"{function}({distinct}{name(a.column)}) OVER LAST '{length(a.time_window)}'{every} AS {name(feature)}")
        lines = self.head(v, [], time, None) + ["  ONLINE"] * bool(v.online) + about(v)
        self.declared[v.name] = v
        return end([*lines, "AS SELECT " + ",\n          ".join([*map(name, keys), name(time), *calls]), f"   FROM {name(table)}"])

    def service(self, s):
        items, outputs, computed = [], [], []
        for p in s.feature_view_projections:
            if any(p.name == v.name for v in self.on_demand):
                computed.append(p.name)
                continue
            if p.name not in self.declared:
                raise Left(f"it reads {p.name}, which is not declared (see there)", "declare the view, then run this program again")
            alias = p.name_alias or p.name
            roles = ", ".join(f"{name(key)} = {name(theirs)}" for key, theirs in (p.join_key_map or {}).items())
            called = f"{name(p.name)} {name(alias)}" if alias != p.name else name(p.name)
            items.append(called + (f" FOR ({roles})" if roles else ""))
            outputs += [f"{name(alias)}.{name(f.name)}" for f in p.features]
        if computed:
            self.left.append((f"feature service {s.name}", f"the outputs of {', '.join(computed)} are missing in it",
                              f"add their expressions to its SELECT list: CREATE OR REPLACE FEATURE SERVICE {name(s.name)} REQUEST (…) AS SELECT …"))
        if not items:
            raise Left("it reads no feature view", "write the expressions as the SELECT list of a service")
        lines = [f"CREATE FEATURE SERVICE {name(s.name)}", *about(s), "AS SELECT " + ",\n          ".join(outputs), "   FROM " + ",\n        ".join(items)]
        return end(lines)


def end(lines):
    return [*lines[:-1], lines[-1] + ";"]


def python_of(transformation):
    return getattr(transformation, "udf_string", "") or ""


def on_demand(v):
    requests = [f for r in v.source_request_sources.values() for f in r.schema]
    reads = ", ".join(sorted({p.name for p in v.source_feature_view_projections.values()}))
    types = ", ".join(f"{name(f.name)} {TYPES.get(getattr(f.dtype, 'name', str(f.dtype)).upper(), '…')}" for f in requests)
    request = f" REQUEST ({types})" if requests else ""
    outputs = ", ".join(f"… AS {name(f.name)}" for f in v.features)
    return (f"on-demand feature view {v.name}", "it is computed by a transformation in Python, when it is asked",
            f"write each output as an expression of a service: CREATE FEATURE SERVICE {name(v.name)}{request} AS SELECT {outputs} FROM {reads or '…'};",
            python_of(v.feature_transformation))


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    folder = os.path.abspath(sys.argv[1])
    if not os.path.exists(os.path.join(folder, "feature_store.yaml")):
        sys.exit(f"{folder} has no feature_store.yaml: name the folder of a Feast repository")
    try:
        from feast import FeatureStore
    except ImportError:
        sys.exit("Feast is not installed here: pip install feast")
    translation = Translation(FeatureStore(folder), folder)
    print(translation.run())
    if translation.left:
        print(f"{len(translation.left)} things have no SQL: see the comments at the end", file=sys.stderr)
        sys.exit(3)


if __name__ == "__main__":
    main()
