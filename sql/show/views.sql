-- SHOW VIEWS | LIKE name | scoped
SELECT name, comment
FROM system.tables
WHERE kind = 'view'
ORDER BY name
