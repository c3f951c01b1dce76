CREATE TABLE orders AS SELECT * FROM (VALUES
  (1, TIMESTAMP '2026-01-01 09:00:00', 20.0, 'a'),
  (1, TIMESTAMP '2026-01-03 12:00:00', 40.5, NULL),
  (2, TIMESTAMP '2026-01-02 18:30:00', 15.25, 'ü'),
  (3, TIMESTAMP '1999-12-31 23:59:59.999999', -0.5, '')
) AS t(user_id, ordered_at, amount, note);
INSERT INTO orders VALUES (4, TIMESTAMP '2026-01-04 00:00:00', 1.5, 'later');
CREATE VIEW big_orders AS SELECT * FROM orders WHERE amount > 15;
CREATE ENTITY customer KEY (user_id BIGINT) COMMENT 'who buys';
CREATE ENTITY item KEY (sku VARCHAR, price DECIMAL(20,2));
CREATE FEATURE VIEW customer_orders (spent COMMENT 'all-time')
  ENTITY customer EVENT TIMESTAMP ordered_at TTL INTERVAL '30 days' ONLINE OWNER 'growth' TAGS (team = 'shop')
AS SELECT user_id, ordered_at, count(*) OVER w AS n, sum(amount) OVER w AS spent, amount * 1.5 AS half_more, 0.5 AS half, note
   FROM orders WINDOW w AS (PARTITION BY user_id ORDER BY ordered_at);
REFRESH FEATURE VIEW customer_orders;
CREATE FEATURE VIEW customer_risk (score DOUBLE, level INT, labels VARCHAR[], inner_part STRUCT<a BIGINT, b VARCHAR>, d DECIMAL(10,3), day DATE, seen TIMESTAMP, raw BYTEA, ok BOOLEAN)
  ENTITY customer EVENT TIMESTAMP scored_at CREATED TIMESTAMP made_at ONLINE;
INSERT INTO customer_risk VALUES
  (1, TIMESTAMP '2026-01-04 00:00:00', TIMESTAMP '2026-01-04 00:00:01', 0.2, 3, ['x', NULL], named_struct('a', 7, 'b', 'seven'), '12.345', DATE '2024-02-29', TIMESTAMP '2026-01-01 00:00:00.000001', X'00ff', true),
  (2, TIMESTAMP '2026-01-04 00:00:00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
  (5, TIMESTAMP '2026-01-05 00:00:00', NULL, 0.9, -1, [], named_struct('a', NULL, 'b', NULL), '-0.001', DATE '1970-01-01', TIMESTAMP '1970-01-01', X'', false),
  (6, TIMESTAMP '2026-01-05 00:00:00', NULL, 0.1, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
DELETE FROM customer_risk WHERE user_id = 6;
CREATE FEATURE VIEW item_stock (stock BIGINT) ENTITY item EVENT TIMESTAMP counted_at ONLINE;
INSERT INTO item_stock VALUES ('a', '9.99', TIMESTAMP '2026-01-01', 5), ('a', '10.00', TIMESTAMP '2026-01-01', 6), ('a', '9.99', TIMESTAMP '2026-01-02', 4);
CREATE FEATURE SERVICE checkout_v1 REQUEST (basket DOUBLE)
AS SELECT o.n, o.spent / o.n AS mean_order, r.score, basket > 2 * o.spent AS unusual FROM customer_orders o, customer_risk r;
MATERIALIZE FEATURE VIEW customer_orders;
CREATE OR REPLACE FEATURE VIEW item_stock (stock BIGINT, reserved BIGINT) ENTITY item EVENT TIMESTAMP counted_at ONLINE;
CREATE TRAINING SET first_set AS SELECT l.*, f.n, f.spent
FROM (VALUES (1, TIMESTAMP '2026-01-02 00:00:00'), (1, TIMESTAMP '2026-01-03 12:00:00'), (2, TIMESTAMP '2026-01-01 00:00:00'), (2, TIMESTAMP '2026-03-01 00:00:00')) AS l(user_id, asked_at)
ASOF JOIN customer_orders f AT l.asked_at;
ALTER FEATURE VIEW customer_risk SET COMMENT 'how risky';
