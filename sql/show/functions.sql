-- SHOW FUNCTIONS | LIKE name | not scoped
SELECT name, kind, syntax, description
FROM (
  SELECT routine_name AS name, function_type AS kind, min(syntax_example) AS syntax, min(description) AS description
  FROM information_schema.routines
  GROUP BY routine_name, function_type
) f
ORDER BY name
