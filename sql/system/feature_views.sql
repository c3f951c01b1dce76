-- Feature views, each as the version that its bare name means.
SELECT
  schema,             -- Schema of the view.
  name,               -- Its name.
  version,            -- The version that the bare name means.
  entities,           -- Names of its entities.
  keys,               -- Key columns with their types, in the entities' order.
  features,           -- Number of features.
  ttl,                -- TTL; NULL: no limit.
  online,             -- Whether it is ONLINE.
  kind,               -- `query`; `push`: rows come by INSERT; `snapshot`: each REFRESH stores one snapshot.
  rows,               -- Rows of its table; NULL where the table cannot be read.
  watermark,          -- Newest event timestamp that is stored.
  event_timestamp,    -- Column of the event timestamp.
  created_timestamp,  -- Column of the created timestamp.
  lookback,           -- LOOKBACK: how far behind the watermark a REFRESH looks.
  refresh_every,      -- REFRESH EVERY; NULL: no schedule.
  suspended,          -- Whether its schedule is suspended.
  query,              -- The SELECT after AS; NULL for a push view.
  location,           -- Where its table lies.
  comment,            -- COMMENT of the view.
  owner,              -- OWNER of the view.
  tags,               -- TAGS of the view: `tag = value`, with commas between.
  created_at          -- When the version was created.
FROM system.feature_view_versions
WHERE is_current
