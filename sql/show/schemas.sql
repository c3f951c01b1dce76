-- SHOW SCHEMAS | LIKE name | not scoped
SELECT name, comment
FROM system.schemas
ORDER BY name
