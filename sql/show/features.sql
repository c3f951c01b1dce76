-- SHOW FEATURES | LIKE name | scoped
SELECT feature_view, name, data_type, comment, tags, "window"
FROM system.features
ORDER BY feature_view, position
