-- SHOW TRAINING SETS | LIKE name | scoped
SELECT name, rows, content_hash, instant, location, comment
FROM system.training_sets
ORDER BY name
