#!/usr/bin/env python3
"""Reads the demo's features over ADBC and trains a model on its training set.

    make demo                                                      # makes ./warehouse-demo
    target/debug/remige serve -w warehouse-demo &                  # prints: remige ready grpc://127.0.0.1:8815
    pip install adbc-driver-flightsql adbc-driver-manager pyarrow scikit-learn
    python examples/client.py grpc://127.0.0.1:8815

Any Flight SQL client can do this: nothing here is particular to Remige but the SQL.
"""
import datetime
import sys

import adbc_driver_flightsql.dbapi as flight_sql
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

SERVICE = "departure_delay_v1"
ASKED = ["distance", "utc_hour"]  # not features: known to whoever asks
FEATURES = ["temperature", "wind_speed", "visibility", "precipitation", "pressure", "departures_3h", "avg_delay_3h",
            "late_share_3h", "minutes_since_departure", "seats", "engines", "plane_age"]
# The model learns from the first ten months and is judged on the last two.
SPLIT = datetime.datetime(2013, 11, 1, tzinfo=datetime.timezone.utc)


def query(connection, sql, parameters=None):
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetch_arrow_table()


def matrix(table, columns):
    return np.column_stack([pc.cast(table[c], pa.float64()).to_numpy() for c in columns])


def main(address):
    with flight_sql.connect(address) as connection:
        rows = query(connection, "SELECT * FROM late_departures")
        early = pc.less(rows["scheduled_at"], pa.scalar(SPLIT, pa.timestamp("us", "UTC")))
        train, test = rows.filter(early), rows.filter(pc.invert(early))
        print(f"training set: {rows.num_rows:,} rows, {train.num_rows:,} to learn from, {test.num_rows:,} to judge")

        model = HistGradientBoostingClassifier(random_state=0)
        model.fit(matrix(train, ASKED + FEATURES), train["late"].to_numpy())
        auc = {}
        for name, part in (("learnt", train), ("judged", test)):
            auc[name] = roc_auc_score(part["late"].to_numpy(), model.predict_proba(matrix(part, ASKED + FEATURES))[:, 1])
        print(f"AUC on the flights judged: {auc['judged']:.3f} (on those learnt from: {auc['learnt']:.3f})")

        # The same features, online: prepared once, one row of parameters per flight, one batched read each.
        lookup = f"SELECT * FROM ONLINE_LOOKUP('{SERVICE}', $1, $2, $3, $4, at => TIMESTAMP '2013-12-31 00:00:00')"
        for flight in (("EWR", "UA", "N68452", 1605), ("LGA", "WN", "N298WN", 725), ("JFK", "B6", "no such plane", 944)):
            found = query(connection, lookup, flight)
            asked = found.append_column("utc_hour", pa.array([0.0]))
            risk = model.predict_proba(matrix(asked, ASKED + FEATURES))[0, 1]
            print(f"{' '.join(map(str, flight))}: {risk:.0%} likely to leave more than 15 minutes late")
    return auc["judged"]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(0 if main(sys.argv[1]) > 0.65 else "the model learnt nothing: is this the demo's warehouse?")
