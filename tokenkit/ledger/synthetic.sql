-- A history that never happened, for demonstrations and benchmarks; every row says so: imported = 'synthetic', and its
-- models are called synthetic/…. `$calls`, `$seed` and `$until` (Unix seconds) are its only parameters: the same ones
-- give the same rows. Chance comes from hashing the row's number, so any part can be made again without the rest.

CREATE OR REPLACE TEMP MACRO chance(i, k) AS (hash(i, k, getvariable('seed')) % 1000003 + 0.5) / 1000003;
CREATE OR REPLACE TEMP MACRO bell(i, k) AS sqrt(-2 * ln(chance(i, k))) * cos(6.283185307 * chance(i, k + 100));

CREATE OR REPLACE TEMP TABLE made AS
WITH drawn AS (
  SELECT i AS seq,
    -- four months up to now: working days are busier, and the middle of the day is busier than its ends
    CAST(getvariable('until') - 86400 * floor(120 * (1 - power(chance(i, 1), 0.85)))
      - CASE WHEN chance(i, 2) < 0.85 THEN 28800 + 36000 * (chance(i, 3) + chance(i, 4)) / 2
             ELSE 86400 * chance(i, 3) END AS BIGINT) AS began,
    CAST(least(exp(6.3 + 1.1 * bell(i, 5)), 90000) AS BIGINT) + 8 AS size,
    CAST(least(exp(4.7 + 0.8 * bell(i, 6)), 4000) AS BIGINT) + 1 AS answer,
    CAST(floor(25 * power(chance(i, 7), 2.2)) AS INTEGER) AS who,
    CAST(floor(5 * power(chance(i, 8), 1.5)) AS INTEGER) + 1 AS part,
    chance(i, 9) AS draw, chance(i, 10) AS luck
  FROM range(1, getvariable('calls') + 1) t(i)
), chosen AS (
  SELECT *, size > 12000 AS long,
    CASE WHEN size > 12000 THEN CASE WHEN draw < 0.30 THEN 1 ELSE 2 END
         WHEN draw < 0.20 THEN 1 WHEN draw < 0.65 THEN 2 ELSE 3 END AS pick
  FROM drawn
)
SELECT *, CASE WHEN luck < 0.02 AND pick > 1 THEN pick - 1 ELSE pick END AS final, luck < 0.02 AND pick > 1 AS escalated,
  luck > 0.995 AS failed, CASE WHEN chance(seq, 11) < 0.25 AND size > 1024 THEN CAST(0.7 * size AS BIGINT) ELSE 0 END AS cached
FROM chosen;

CREATE OR REPLACE TEMP TABLE costed AS
SELECT *, [3000, 400, 100][final] AS rate_in, [15000, 1600, 400][final] AS rate_out,
  ['synthetic/large', 'synthetic/medium', 'synthetic/small'][final] AS model,
  ['synthetic/large', 'synthetic/medium', 'synthetic/small'][pick] AS first_model,
  0.35 + answer / [55.0, 110.0, 190.0][final] * exp(0.25 * bell(seq, 12)) AS took
FROM made;

INSERT INTO candidate_sets BY NAME
SELECT 20261121 AS candidate_set, ['synthetic/large', 'synthetic/medium', 'synthetic/small'] AS models;

INSERT INTO prices BY NAME
SELECT 20261120 + n AS price, 'synthetic' AS layer, m AS matched, i::BIGINT * 1000000 AS input, o::BIGINT * 1000000 AS output,
  i::BIGINT * 100000 AS cache_read, 0 AS request_nanos, 0 AS tier, 'synthetic' AS version
FROM (VALUES (1, 'synthetic/large', 3000, 15000), (2, 'synthetic/medium', 400, 1600), (3, 'synthetic/small', 100, 400))
  t(n, m, i, o);

INSERT INTO plans BY NAME
SELECT seq, 'score' AS strategy, 20261121 AS candidate_set,
  CASE pick WHEN 1 THEN [1, 2, 3] WHEN 2 THEN [2, 1, 3] ELSE [2, 3, 1] END AS ranks,
  [5.0::DOUBLE, 5.5::DOUBLE, 5.0::DOUBLE] AS scores,
  CASE WHEN long THEN [0.30::DOUBLE, 0.70::DOUBLE, 0.0::DOUBLE] ELSE [0.20::DOUBLE, 0.45::DOUBLE, 0.35::DOUBLE] END AS propensities,
  [size, size, size] AS input_tokens,
  [size * 3000 + 4000 * 15000, size * 400 + 4000 * 1600, size * 100 + 4000 * 400] AS bounds,
  [NULL, NULL, CASE WHEN long THEN 'its window is 16,384 tokens' END] AS rejected
FROM made ORDER BY seq;

INSERT INTO attempts BY NAME
SELECT seq, 1 AS position, first_model AS model, 'synthetic' AS provider,
  make_timestamp(began * 1000000) AT TIME ZONE 'UTC' AS started_at, began * 1000000000 AS started_at_ns,
  0.8 AS seconds, 0.0 AS waited, 'error' AS status, 503 AS http_status, 'overloaded' AS error_type,
  'the model was overloaded (synthetic)' AS error, 0 AS cost_nanos
FROM costed WHERE escalated ORDER BY seq;

INSERT INTO attempts BY NAME
SELECT seq, CASE WHEN escalated THEN 2 ELSE 1 END AS position, model, 'synthetic' AS provider,
  make_timestamp(began * 1000000) AT TIME ZONE 'UTC' AS started_at, began * 1000000000 AS started_at_ns, took AS seconds,
  0.3 + took / 20 AS time_to_first_chunk, 0.0 AS waited, CASE WHEN failed THEN 'error' ELSE 'ok' END AS status,
  CASE WHEN failed THEN 'server_error' END AS error_type, CASE WHEN NOT failed THEN size END AS input_tokens,
  CASE WHEN NOT failed THEN answer END AS output_tokens, CASE WHEN NOT failed THEN cached END AS cache_read_input_tokens,
  CASE WHEN NOT failed THEN 'reported' END AS usage_source,
  CAST(size * (0.97 + 0.06 * chance(seq, 13)) AS BIGINT) AS counted_input_tokens, false AS count_exact,
  'o200k_base' AS count_encoding, CASE WHEN NOT failed THEN 20261120 + final END AS price,
  CASE WHEN failed THEN 0 ELSE (size - cached) * rate_in + cached * rate_in // 10 + answer * rate_out END AS cost_nanos
FROM costed ORDER BY seq;

INSERT INTO stages BY NAME
SELECT seq, s.position, s.stage, CAST(size / s.kept AS BIGINT) AS tokens_before, size AS tokens_after,
  size / 400000.0 AS seconds, s.position = 1 AS lossless, true AS exact
FROM costed, (VALUES (1, 'normalize', 0.93), (2, 'summarize', 0.55)) v(position, stage, mean),
  LATERAL (SELECT v.position, v.stage, least(greatest(v.mean + 0.12 * bell(seq, 20 + v.position), 0.1), 0.99) AS kept) s
WHERE chance(seq, 14) < 0.15 AND size > 400 ORDER BY seq, s.position;

INSERT INTO calls BY NAME
SELECT seq, printf('synthetic-%012d', seq) AS id, make_timestamp(began * 1000000) AT TIME ZONE 'UTC' AS started_at,
  began * 1000000000 AS started_at_ns, took + CASE WHEN escalated THEN 0.8 ELSE 0 END AS seconds,
  0.3 + took / 20 AS time_to_first_chunk, CASE WHEN failed THEN 'error' ELSE 'ok' END AS status, 'chat' AS operation,
  'auto' AS request_model, model, 'synthetic' AS provider, model AS response_model,
  CASE WHEN NOT failed THEN CASE WHEN answer > 3900 THEN 'length' ELSE 'stop' END END AS finish_reason,
  CASE WHEN NOT failed THEN size END AS input_tokens, CASE WHEN NOT failed THEN answer END AS output_tokens,
  CASE WHEN NOT failed THEN cached END AS cache_read_input_tokens, CASE WHEN NOT failed THEN 'reported' END AS usage_source,
  CASE WHEN chance(seq, 14) < 0.15 AND size > 400 THEN CAST(size * 0.8 AS BIGINT) END AS saved_tokens,
  CASE WHEN failed THEN 0 ELSE (size - cached) * rate_in + cached * rate_in // 10 + answer * rate_out END AS cost_nanos,
  CASE WHEN escalated THEN 2 ELSE 1 END AS tries, CASE WHEN failed THEN 'server_error' END AS error_type,
  CASE WHEN NOT failed THEN 20261120 + final END AS price, false AS cached, chance(seq, 15) < 0.6 AS streamed, printf('user-%02d', who) AS "user",
  printf('session-%d', seq // 7) AS "session", printf('part-%d', part) AS endpoint_name, 20261121 AS candidate_set,
  CAST(CASE WHEN long THEN 3 ELSE 7 END AS UBIGINT) AS candidate_mask, 'synthetic' AS imported
FROM costed ORDER BY seq;

INSERT INTO ratings BY NAME
SELECT seq, printf('synthetic-%012d', seq) AS id,
  CASE WHEN chance(seq, 16) < [0.86, 0.80, 0.61][final] - CASE WHEN size > 3000 THEN [0.02, 0.06, 0.2][final] ELSE 0 END
       THEN 1.0 ELSE 0.0 END AS rating,
  make_timestamp((began + 60) * 1000000) AT TIME ZONE 'UTC' AS rated_at
FROM costed WHERE NOT failed AND chance(seq, 17) < 0.08 ORDER BY seq;

DROP TABLE made;
DROP TABLE costed;
