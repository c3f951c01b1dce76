-- Copies the newest values to the online store, which needs no server by default.
MATERIALIZE FEATURE VIEW customer_orders;

-- What a model asks for at prediction time: key and request columns in, features out, one row per key.
SELECT * FROM ONLINE_LOOKUP('purchase_v1', (1, 35.0), (2, 120.0), (999, 10.0), status => true);

-- Next: remige serve
-- Then, from another terminal: remige sql --connect grpc://127.0.0.1:8815 -c 'SHOW FEATURE VIEWS'
