-- SHOW FEATURE SERVICES | LIKE name | scoped
SELECT name, wants, views, features, comment, owner, tags
FROM system.feature_services
ORDER BY name
