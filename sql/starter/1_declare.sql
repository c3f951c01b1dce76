-- What there is: two CSV files. Files on S3 and Parquet, JSON or Delta tables work in the same way.
CREATE EXTERNAL TABLE IF NOT EXISTS orders (order_id BIGINT, customer_id BIGINT, amount DOUBLE, ordered_at TIMESTAMP)
STORED AS CSV LOCATION 'data/orders.csv' OPTIONS ('format.has_header' 'true');

CREATE EXTERNAL TABLE IF NOT EXISTS visits (customer_id BIGINT, visited_at TIMESTAMP, basket DOUBLE, bought BOOLEAN)
STORED AS CSV LOCATION 'data/visits.csv' OPTIONS ('format.has_header' 'true');

-- What features are about, and the key that finds it.
CREATE ENTITY IF NOT EXISTS customer KEY (customer_id BIGINT) COMMENT 'Somebody who orders';

-- Features are a query. Its event timestamp says from when on a value was known: here, from the order itself on.
-- A value older than the TTL counts as missing, in training and online alike.
CREATE FEATURE VIEW IF NOT EXISTS customer_orders
  (orders_so_far COMMENT 'orders up to now', avg_amount COMMENT 'mean amount up to now', last_amount COMMENT 'amount of the last order')
  ENTITY customer
  EVENT TIMESTAMP ordered_at
  TTL INTERVAL '60 days'
  ONLINE
  COMMENT 'What a customer has ordered up to an instant'
AS SELECT customer_id,
          ordered_at,
          count(*) OVER w AS orders_so_far,
          avg(amount) OVER w AS avg_amount,
          amount AS last_amount
   FROM orders
   WINDOW w AS (PARTITION BY customer_id ORDER BY ordered_at ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW);

-- What a model wants: features, and values that the caller brings (REQUEST).
CREATE FEATURE SERVICE IF NOT EXISTS purchase_v1
  REQUEST (basket DOUBLE)
  COMMENT 'Inputs of the purchase model'
AS SELECT c.orders_so_far, c.avg_amount, basket / c.avg_amount AS basket_ratio
   FROM customer_orders c;

SHOW FEATURE VIEWS;

-- Next: remige sql -f 2_refresh.sql
