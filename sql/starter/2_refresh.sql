-- Computes the features and stores them in a Delta table of the warehouse. Run it again when there is new data:
-- only what is new is written.
REFRESH FEATURE VIEW customer_orders FULL;

SELECT * FROM customer_orders ORDER BY ordered_at DESC LIMIT 5;

-- What ran, and how many rows it read, wrote and rejected.
SHOW RUNS;

-- Next: remige sql -f 3_train.sql
