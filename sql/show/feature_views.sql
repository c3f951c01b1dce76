-- SHOW FEATURE VIEWS | LIKE name | scoped
SELECT name, version, entities, features, ttl, online, kind, rows, watermark, comment
FROM system.feature_views
ORDER BY name
