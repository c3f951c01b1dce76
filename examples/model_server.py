#!/usr/bin/env python3
"""A model behind HTTP: trains on the features as they were, answers with the features as they are.

    remige serve -w my-warehouse &                       # prints: remige ready grpc://127.0.0.1:8815
    pip install pyarrow adbc-driver-flightsql adbc-driver-manager scikit-learn
    python examples/model_server.py grpc://127.0.0.1:8815 --port 8080
    curl -s localhost:8080/predict -d '{"shopper_id": [1, 2, 99], "amount": [20.0, 400.0, 35.0]}'

Both sides read one feature service, `return_risk_v1`: the model learns from its values at the time of each purchase
(ASOF JOIN … AT) and is asked with its values of now (one ticket per request, examples/lookup_ticket.py).
"""
import argparse
import json
import math
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import adbc_driver_flightsql.dbapi as flight_sql
import numpy as np
import pyarrow as pa
import pyarrow.flight as flight
from sklearn.ensemble import HistGradientBoostingClassifier

from lookup_ticket import lookup_ticket

SERVICE = "return_risk_v1"
FEATURES = ["orders", "spent", "times_usual"]
# What a real warehouse has already: a push view that some pipeline fills, a service, and purchases with their outcome.
SETUP = ["CREATE ENTITY IF NOT EXISTS shopper KEY (shopper_id BIGINT)",
         "CREATE FEATURE VIEW IF NOT EXISTS shopper_orders (orders BIGINT, spent DOUBLE)"
         " ENTITY shopper EVENT TIMESTAMP counted_at AT TIME ZONE 'UTC' ONLINE",
         "CREATE FEATURE SERVICE IF NOT EXISTS return_risk_v1 REQUEST (amount DOUBLE)"
         " AS SELECT s.orders, s.spent, amount / (s.spent / s.orders) AS times_usual FROM shopper_orders s",
         # shopper 1 … 200, each counted once a day; who buys for much more than usual often sends it back
         "INSERT INTO shopper_orders SELECT 1 + i % 200, to_timestamp(1767225600 + 86400 * (i / 200)), 1 + i % 7 + i / 200, 50.0 * (1 + i % 7 + i / 200)"
         " FROM (SELECT value AS i FROM generate_series(0, 1999))"]
TRAINING = f"""
    SELECT f.orders, f.spent, f.times_usual, p.sent_back
    FROM (SELECT 1 + value % 200 AS shopper_id, to_timestamp(1767225600 + 86400 * (value % 10) + 3600) AS bought_at,
                 CASE WHEN value % 3 = 0 THEN 250.0 ELSE 40.0 END AS amount,
                 CASE WHEN value % 3 = 0 AND value % 5 > 0 THEN 1 ELSE 0 END AS sent_back
          FROM generate_series(0, 1999)) p
    ASOF JOIN {SERVICE} f AT p.bought_at"""


class BadRequest(Exception):
    pass


def train(address):
    with flight_sql.connect(address, autocommit=True) as connection, connection.cursor() as cursor:
        for sql in SETUP:
            cursor.execute(sql)
        cursor.execute(TRAINING)
        rows = cursor.fetch_arrow_table()
    model = HistGradientBoostingClassifier(random_state=0)
    model.fit(matrix(rows), rows["sent_back"].to_numpy())
    print(f"learnt from {rows.num_rows:,} purchases", flush=True)
    return model


def matrix(rows):
    """A missing value is NaN, which this model takes for what it is."""
    return np.column_stack([rows[c].cast(pa.float64()).to_numpy() for c in FEATURES])


class Features:
    """Lookups with a deadline. Safe to share between threads: one HTTP/2 connection, as many calls at once as there are."""

    def __init__(self, address, deadline):
        self.client = flight.connect(address.replace("grpc://", "grpc+tcp://", 1))
        self.options = flight.FlightCallOptions(timeout=deadline)

    def of(self, shoppers, amounts):
        keys = pa.record_batch({"shopper_id": pa.array(shoppers, pa.int64()), "amount": pa.array(amounts, pa.float64())})
        ticket = flight.Ticket(lookup_ticket(SERVICE, keys, status=True))
        try:
            return self.client.do_get(ticket, self.options).read_all()
        except flight.FlightUnavailableError:
            # the server restarts, or its store is away for a moment: once more. A deadline that is over is not tried again.
            return self.client.do_get(ticket, self.options).read_all()


def numbers(body, name, kinds):
    values = body.get(name)
    if not isinstance(values, list) or not values or not all(type(v) in kinds and math.isfinite(v) for v in values):
        raise BadRequest(f"{name} must be a list of numbers")
    return values


def predict(model, features, body):
    if not isinstance(body, dict):
        raise BadRequest('expected {"shopper_id": […], "amount": […]}')
    shoppers, amounts = numbers(body, "shopper_id", (int,)), numbers(body, "amount", (int, float))
    if len(shoppers) != len(amounts):
        raise BadRequest("shopper_id and amount must be equally long")
    if not all(-(1 << 63) <= s < 1 << 63 for s in shoppers):
        raise BadRequest("shopper_id must be a BIGINT")
    rows = features.of(shoppers, [float(a) for a in amounts])
    risk = model.predict_proba(matrix(rows))[:, 1]
    return [{"shopper_id": s, "risk": round(float(r), 4), "features": status}
            for s, r, status in zip(shoppers, risk, rows["s__status"].to_pylist())]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        try:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            answer, code = predict(self.server.model, self.server.features, body), 200
        except (BadRequest, json.JSONDecodeError, UnicodeDecodeError) as e:
            answer, code = {"error": str(e)}, 400
        except flight.FlightTimedOutError:
            answer, code = {"error": "the features did not come in time"}, 504
        except flight.FlightUnavailableError as e:
            answer, code = {"error": str(e).splitlines()[0]}, 503
        except pa.ArrowException as e:
            # a service that is gone, a view never materialized: retrying does not help, somebody must look
            print(e, file=sys.stderr, flush=True)
            answer, code = {"error": str(e).splitlines()[0]}, 500
        data = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("address")
    p.add_argument("--port", type=int, default=8080, help="0: a free one")
    p.add_argument("--deadline", type=float, default=0.1, help="seconds that a lookup may take")
    args = p.parse_args()
    server = ThreadingHTTPServer(("127.0.0.1", args.port), Handler)
    server.model, server.features = train(args.address), Features(args.address, args.deadline)
    print(f"listening on http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
