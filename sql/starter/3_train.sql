-- Every visit with the features as they were at the instant of the visit: nothing from later leaks in.
SELECT v.visited_at, v.customer_id, v.bought, f.orders_so_far, f.avg_amount
FROM visits v ASOF JOIN customer_orders f AT v.visited_at
ORDER BY v.visited_at DESC
LIMIT 5;

-- The same for all inputs of the model, kept as a training set that can be rebuilt.
CREATE TRAINING SET purchase_train
  COMMENT 'Visits of the last 30 days'
AS SELECT * FROM visits ASOF JOIN purchase_v1 AT visits.visited_at;

COPY (SELECT * FROM purchase_train) TO 'train.parquet';

-- Next: remige sql -f 4_serve.sql
-- (To run this script again: DROP TRAINING SET purchase_train;)
