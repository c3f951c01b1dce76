-- Will this flight leave late?
--
-- All 336,776 flights that left New York's airports in 2013, the hourly weather there and the planes
-- that flew. We declare features, build a training set that knows nothing of the future, put the newest
-- values online and ask for them, and check that both sides give the same answers.
--
-- Run it from the top of the repository, on a fresh warehouse:
--     remige sql -w warehouse-demo -f examples/flights.sql


-- 1. Source data ------------------------------------------------------------------------------------------
SELECT 'Parquet files of flights, weather and planes become tables; they stay where they are' AS "1. Source data";

CREATE EXTERNAL TABLE flights STORED AS PARQUET LOCATION 'examples/data/flights.parquet';
CREATE EXTERNAL TABLE weather STORED AS PARQUET LOCATION 'examples/data/weather.parquet';
CREATE EXTERNAL TABLE planes  STORED AS PARQUET LOCATION 'examples/data/planes.parquet';

-- The clock times in `flights` (dep_time, sched_dep_time) are New York wall-clock times, and 2013 has two
-- daylight-saving changes. `time_hour` is the scheduled hour in UTC, so the scheduled instant is that hour
-- plus `minute`; the instant at which the plane really left is `dep_delay` minutes after it.
CREATE VIEW departures AS
SELECT carrier, flight, tailnum, origin, dest, distance, dep_delay,
       time_hour + CAST(minute || ' minutes' AS INTERVAL)               AS scheduled_at,
       time_hour + CAST((minute + dep_delay) || ' minutes' AS INTERVAL) AS departed_at
FROM flights;


-- 2. Labels -----------------------------------------------------------------------------------------------
SELECT 'one row per flight at its scheduled UTC instant: did it leave more than 15 minutes late?' AS "2. Labels";

-- 8,255 cancelled flights never left: they are neither late nor on time, so they are no labels.
--
-- When do we want to know? Not at the scheduled instant: 61 % of all flights have left by then, and the
-- features below would contain the very departure that we want to predict. No flight left more than
-- 43 minutes early, so one hour ahead nothing of its own outcome is known: the prediction is made then.
CREATE VIEW labels AS
SELECT carrier, flight, origin, tailnum, dest, distance, scheduled_at,
       scheduled_at - INTERVAL '1 hour' AS predict_at,
       dep_delay > 15                   AS late
FROM departures
WHERE dep_delay IS NOT NULL;

SELECT count(*) AS labels,
       round(100 * avg(CASE WHEN late THEN 1.0 ELSE 0.0 END), 1) AS percent_late,
       min(scheduled_at) AS first_flight, max(scheduled_at) AS last_flight
FROM labels;

SELECT round(100 * avg(CASE WHEN departed_at <= scheduled_at THEN 1.0 ELSE 0.0 END), 1)
         AS percent_gone_at_scheduled_instant,
       round(100 * avg(CASE WHEN departed_at <= scheduled_at - INTERVAL '1 hour' THEN 1.0 ELSE 0.0 END), 1)
         AS percent_gone_one_hour_before
FROM departures WHERE departed_at IS NOT NULL;


-- 3. Entities: what the features are about ----------------------------------------------------------------

CREATE ENTITY airport         KEY (origin VARCHAR)                  COMMENT 'an airport of departure';
CREATE ENTITY airline_station KEY (carrier VARCHAR, origin VARCHAR) COMMENT 'an airline at an airport';
CREATE ENTITY plane           KEY (tailnum VARCHAR)                 COMMENT 'an aircraft, by its tail number';


-- 4. Feature views: how the values are computed, and when each became known -------------------------------
SELECT 'weather at the airport, recent delays of the airline there, facts about the plane' AS "4. Feature views";

-- An hour's weather is known when the hour is over. Older than three hours it says nothing about now:
-- the TTL turns it into NULL, in training and online by the same rule. (Hours are missing from the file.)
CREATE FEATURE VIEW origin_weather
  (wind_speed COMMENT 'mph', visibility COMMENT 'miles', precipitation COMMENT 'inches in the hour')
  ENTITY airport
  EVENT TIMESTAMP observed_at
  TTL INTERVAL '3 hours'
  ONLINE
  COMMENT 'Hourly weather at the airport of departure'
AS SELECT origin,
          time_hour + INTERVAL '1 hour' AS observed_at,
          temp AS temperature, wind_speed, visib AS visibility, precip AS precipitation, pressure
   FROM weather;

-- How is this airline doing here? A delay is known when the plane has left, so departures are stamped with
-- `departed_at`: nothing leaks. The windows reach back three hours from the instant that is asked, in training the
-- label's, online now, and nobody writes a value when a departure grows too old.
CREATE FEATURE VIEW station_delays
  (departures_3h COMMENT 'departures in the last three hours',
   late_3h       COMMENT 'those that left more than 15 minutes late',
   avg_delay_3h  COMMENT 'their mean delay in minutes, early ones negative' TAGS (unit = 'minute'))
  ENTITY airline_station
  EVENT TIMESTAMP departed_at
  LOOKBACK INTERVAL '1 hour'
  ONLINE
  COMMENT 'Recent departures of an airline at an airport'
  OWNER 'ops' TAGS (domain = 'punctuality')
AS SELECT carrier, origin, departed_at,
          count(*)                               OVER last_3h AS departures_3h,
          count(*) FILTER (WHERE dep_delay > 15) OVER last_3h AS late_3h,
          avg(dep_delay)                         OVER last_3h AS avg_delay_3h
   FROM departures
   WHERE departed_at IS NOT NULL
   WINDOW last_3h AS (LAST '3 hours' EXACT);

-- Facts do not age: no TTL. The registry file has no dates; we take it as known when the year begins.
-- One flight in six finds no plane here: its features are NULL, its row stays.
CREATE FEATURE VIEW plane_facts
  ENTITY plane
  EVENT TIMESTAMP known_from
  ONLINE
  COMMENT 'What the registry says about an aircraft'
AS SELECT tailnum, to_timestamp('2013-01-01T00:00:00Z') AS known_from,
          year AS built, seats, engines, manufacturer
   FROM planes;

SHOW FEATURE VIEWS;


-- 5. A feature service: what the model asks for -----------------------------------------------------------
SELECT 'features of three views, expressions over them, and a column that the caller brings' AS "5. A feature service";

-- The caller brings `distance`. The expressions run unchanged in training and online; now() is the row's
-- instant, so a plane is as old as it was then.
CREATE FEATURE SERVICE departure_delay_v1
  REQUEST (distance BIGINT)
  COMMENT 'Features of the late-departure model'
  TAGS (model = 'late_departure')
AS SELECT w.temperature, w.wind_speed, w.visibility, w.precipitation, w.pressure,
          d.departures_3h, d.avg_delay_3h,
          CAST(d.late_3h AS DOUBLE) / nullif(d.departures_3h, 0)              AS late_share_3h,
          (date_part('epoch', now()) - date_part('epoch', d.departed_at)) / 60 AS minutes_since_departure,
          p.seats, p.engines,
          CAST(date_part('year', now()) AS BIGINT) - p.built                  AS plane_age,
          CASE WHEN distance < 500 THEN 'short' WHEN distance < 1500 THEN 'medium' ELSE 'long' END AS haul
   FROM origin_weather w, station_delays d, plane_facts p;

DESCRIBE departure_delay_v1;


-- 6. Refresh: compute the features into Delta tables ------------------------------------------------------
SELECT 'the queries run and their rows are stored, as if it were 30 December 2013, 18:00 UTC' AS "6. Refresh";

-- It is 30 December 2013, 18:00 UTC, one in the afternoon in New York: `AT` runs as if it were then, and what
-- happened later stays unseen.
REFRESH FEATURE VIEW origin_weather AT '2013-12-30 18:00';
REFRESH FEATURE VIEW station_delays AT '2013-12-30 18:00';
REFRESH FEATURE VIEW plane_facts    AT '2013-12-30 18:00';

SELECT * FROM station_delays WHERE carrier = 'UA' AND origin = 'EWR' ORDER BY departed_at LIMIT 5;


-- 7. A training set ---------------------------------------------------------------------------------------
SELECT 'for every flight the features as they were known one hour before it' AS "7. A training set";

-- For every flight the features as they were known one hour before its scheduled departure. As many rows
-- as labels; stored with a manifest, so that it can be made again.
CREATE TRAINING SET late_departures COMMENT 'flights of 2013 up to 30 December'
AS SELECT l.carrier, l.flight, l.origin, l.tailnum, l.dest, l.scheduled_at, l.predict_at, l.late,
          l.distance, date_part('hour', l.predict_at) AS utc_hour, f.*
   FROM (SELECT * FROM labels WHERE scheduled_at < to_timestamp('2013-12-30T00:00:00Z')) l
   ASOF JOIN departure_delay_v1 f AT l.predict_at;

SELECT count(*) AS training_rows, count(temperature) AS with_weather, count(avg_delay_3h) AS with_delays,
       count(seats) AS with_plane, count(*) FILTER (WHERE late) AS late
FROM late_departures;

-- Does it carry a signal? The share of late flights by how late the airline has been running.
SELECT CASE WHEN late_share_3h IS NULL THEN '(none left recently)'
            WHEN late_share_3h < 0.25 THEN '0-25 %' WHEN late_share_3h < 0.5 THEN '25-50 %'
            WHEN late_share_3h < 0.75 THEN '50-75 %' ELSE '75-100 %' END AS late_in_last_3h,
       count(*) AS flights, round(100 * avg(CASE WHEN late THEN 1.0 ELSE 0.0 END), 1) AS percent_late
FROM late_departures GROUP BY 1 ORDER BY 1;

COPY (SELECT * FROM late_departures) TO 'examples/out/late_departures.parquet' STORED AS PARQUET;


-- 8. Online: the newest value per key, ready to be asked for ----------------------------------------------
SELECT 'the newest value per key goes to the online store; lookups read only that' AS "8. Online";

MATERIALIZE ALL FEATURE VIEWS;

-- Three flights that leave around 19:00: keys in order of first appearance in FROM, then the request column.
SELECT origin, carrier, tailnum, distance, temperature, visibility, departures_3h, round(late_share_3h, 2) AS late_share_3h, seats, plane_age
FROM ONLINE_LOOKUP('departure_delay_v1',
       ('EWR', 'UA', 'N68452', 1605), ('LGA', 'WN', 'N298WN', 725), ('JFK', 'B6', 'no such plane', 944),
       at => TIMESTAMP '2013-12-30 18:00:00');

-- Why is something NULL? The status of each view says so.
SELECT tailnum, w__status, d__status, p__status, d__event_timestamp
FROM ONLINE_LOOKUP('departure_delay_v1', ('JFK', 'B6', 'no such plane', 944), ('LGA', 'OO', 'N68452', 544),
       at => TIMESTAMP '2013-12-30 18:00:00', status => true);


-- Windows age by themselves: the same record, asked again later. Nothing was written in between.
SELECT at, departures_3h, round(avg_delay_3h, 1) AS avg_delay_3h FROM (
  SELECT '18:00' AS at, * FROM ONLINE_LOOKUP('station_delays', ('UA', 'EWR'), at => TIMESTAMP '2013-12-30 18:00:00') UNION ALL
  SELECT '20:00' AS at, * FROM ONLINE_LOOKUP('station_delays', ('UA', 'EWR'), at => TIMESTAMP '2013-12-30 20:00:00') UNION ALL
  SELECT '22:00' AS at, * FROM ONLINE_LOOKUP('station_delays', ('UA', 'EWR'), at => TIMESTAMP '2013-12-30 22:00:00')) ORDER BY at;


-- 9. Six hours later --------------------------------------------------------------------------------------
SELECT 'refresh reads on from where it stopped, materialize writes the keys that changed' AS "9. Six hours later";

-- Refresh reads on from where it stopped, and materialize writes only the keys that changed.
REFRESH FEATURE VIEW origin_weather AT '2013-12-31 00:00';
REFRESH FEATURE VIEW station_delays AT '2013-12-31 00:00';
MATERIALIZE FEATURE VIEW origin_weather;
MATERIALIZE FEATURE VIEW station_delays;


-- 10. Online equals offline -------------------------------------------------------------------------------
SELECT 'every airport, airline and plane asked on both sides: rows that only one side has' AS "10. Online equals offline";

-- Every combination of airport, airline and plane of the year, asked on both sides for the same instant:
-- the rows that only one side has. Both numbers must be 0.
CREATE VIEW every_key AS
SELECT origin, carrier, tailnum, min(distance) AS distance, TIMESTAMP '2013-12-31 00:00:00' AS asked_at
FROM flights GROUP BY origin, carrier, tailnum;

WITH online AS (
  SELECT origin, carrier, tailnum, distance, temperature, wind_speed, visibility, precipitation, pressure,
         departures_3h, avg_delay_3h, late_share_3h, minutes_since_departure, seats, engines, plane_age, haul
  FROM ONLINE_LOOKUP('departure_delay_v1', (SELECT origin, carrier, tailnum, distance FROM every_key),
                     at => TIMESTAMP '2013-12-31 00:00:00')
), offline AS (
  SELECT k.origin, k.carrier, k.tailnum, k.distance, f.temperature, f.wind_speed, f.visibility, f.precipitation,
         f.pressure, f.departures_3h, f.avg_delay_3h, f.late_share_3h, f.minutes_since_departure, f.seats,
         f.engines, f.plane_age, f.haul
  FROM every_key k ASOF JOIN departure_delay_v1 f AT k.asked_at
)
SELECT (SELECT count(*) FROM online)  AS keys,
       (SELECT count(*) FROM online WHERE departures_3h > 0) AS with_recent_departures,
       (SELECT count(*) FROM (SELECT * FROM online EXCEPT SELECT * FROM offline)) AS only_online,
       (SELECT count(*) FROM (SELECT * FROM offline EXCEPT SELECT * FROM online)) AS only_offline;


-- 11. What was done, and where it is ----------------------------------------------------------------------
SELECT kind, object, version, status, rows_read, rows_written, delta_version
FROM system.runs ORDER BY started_at;

SELECT * FROM (VALUES
  ('warehouse-demo',                       'the warehouse: registry, feature tables, training set (Delta), online store'),
  ('examples/out/late_departures.parquet', 'the training set as one Parquet file'),
  ('examples/flights.sql',                 'this script'),
  ('examples/client.py',                   'the same reads over ADBC, and a model trained on the training set')
) AS made(path, what);
