-- SHOW SOURCES | LIKE name | scoped
SELECT name, kind, format, location, comment
FROM system.sources
ORDER BY name
