-- SHOW TABLES | LIKE name | scoped
SELECT name, kind, comment
FROM system.tables
ORDER BY name
