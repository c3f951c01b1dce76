-- SHOW ENTITIES | LIKE name | scoped
SELECT name, keys, comment, owner, tags
FROM system.entities
ORDER BY name
