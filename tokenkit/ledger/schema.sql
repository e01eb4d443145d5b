-- The ledger: what every call was, columnar, for questions. A copy of the journal, which is the truth.
--
-- Sections start with "-- @". A version section is applied once, in order, and never edited after its release:
-- a change is a new section. The views section is made anew by every version.
--
-- Units: tokens; seconds; money in nano-USD (1e-9 USD, BIGINT) with *_usd as exact DECIMAL beside it; rates in
-- femto-USD per token (1e9 = 1 USD per million tokens); *_ns in Unix nanoseconds, exact, with a TIMESTAMPTZ in
-- microseconds beside it. NULL is "unknown", never 0. Rows belong together by seq. The comments at the right are
-- OpenTelemetry GenAI attributes; the view otel_calls has them as column names with dots turned into underscores.
-- There is no key or index: the watermark in sources, committed with the rows, is what makes every row appear once.

-- @version 1

CREATE TABLE sources (            -- the journals copied from, and how far
  journal_id VARCHAR NOT NULL,
  base       BIGINT NOT NULL,     -- calls.seq = base + the journal's seq
  seq        BIGINT NOT NULL,     -- the journal's last row copied: the watermark
  hash       BLOB NOT NULL,       -- that row's hash; another one in the journal now means it was changed or restored
  restored   BOOLEAN NOT NULL,    -- the journal was once restored from a copy, so rows are also told apart by id
  copied_at  TIMESTAMPTZ NOT NULL
);

CREATE TABLE calls (              -- one row a logical call, however many tries it took
  seq                         BIGINT NOT NULL,
  id                          VARCHAR NOT NULL,
  started_at                  TIMESTAMPTZ NOT NULL,
  started_at_ns               BIGINT NOT NULL,
  seconds                     DOUBLE,            -- gen_ai.client.operation.duration
  time_to_first_chunk         DOUBLE,            -- gen_ai.client.operation.time_to_first_chunk; of the last try
  status                      VARCHAR,           -- ok, error, cancelled; unreadable: the journal's row is damaged
  operation                   VARCHAR,           -- gen_ai.operation.name
  request_model               VARCHAR,           -- gen_ai.request.model: what was asked for, such as auto
  model                       VARCHAR,           -- provider/name of the model tried last
  provider                    VARCHAR,           -- gen_ai.provider.name
  response_model              VARCHAR,           -- gen_ai.response.model: what the provider says answered
  finish_reason               VARCHAR,           -- gen_ai.response.finish_reasons
  input_tokens                BIGINT,            -- gen_ai.usage.input_tokens: cache reads and creations included
  output_tokens               BIGINT,            -- gen_ai.usage.output_tokens: reasoning included
  cache_read_input_tokens     BIGINT,            -- gen_ai.usage.cache_read.input_tokens
  cache_creation_input_tokens BIGINT,            -- gen_ai.usage.cache_creation.input_tokens
  reasoning_output_tokens     BIGINT,            -- gen_ai.usage.reasoning.output_tokens
  usage_source                VARCHAR,           -- reported, counted, estimated
  saved_tokens                BIGINT,            -- input tokens that compression took away; NULL: no stage ran
  cost_nanos                  BIGINT,
  price                       BIGINT,            -- prices.price
  priced_at                   TIMESTAMPTZ,
  tries                       INTEGER NOT NULL,
  error_type                  VARCHAR,           -- error.type
  error                       VARCHAR,
  cached                      BOOLEAN NOT NULL,
  streamed                    BOOLEAN NOT NULL,
  "user"                      VARCHAR,           -- user.id
  "session"                   VARCHAR,           -- gen_ai.conversation.id
  endpoint_name               VARCHAR,
  parent                      VARCHAR,           -- id of the call that made this one
  candidate_set               BIGINT,            -- candidate_sets.candidate_set
  candidate_mask              UBIGINT,           -- bit i - 1: models[i] of that set could be tried; NULL above 64 models
  prompt                      VARCHAR,           -- gen_ai.input.messages, as text; NULL where prompts are not kept
  answer                      VARCHAR,           -- gen_ai.output.messages, as text
  prompt_sha256               VARCHAR,
  notes                       VARCHAR[],
  -- TRY_CAST: one absurd number in a receipt must not make the whole table unreadable
  total_tokens BIGINT GENERATED ALWAYS AS (TRY_CAST(CAST(input_tokens AS HUGEINT) + output_tokens AS BIGINT)) VIRTUAL,
  cost_usd DECIMAL(18,9) GENERATED ALWAYS AS
    (TRY_CAST(TRY_CAST(cost_nanos AS DECIMAL(18,0)) * CAST(0.000000001 AS DECIMAL(10,9)) AS DECIMAL(18,9))) VIRTUAL
);

CREATE TABLE attempts (           -- one row a try at one model
  seq                         BIGINT NOT NULL,
  position                    INTEGER NOT NULL,  -- 1 is the first try
  model                       VARCHAR,
  provider                    VARCHAR,
  started_at                  TIMESTAMPTZ,
  started_at_ns               BIGINT,
  seconds                     DOUBLE,
  time_to_first_chunk         DOUBLE,
  waited                      DOUBLE,            -- seconds slept before this try
  status                      VARCHAR,
  http_status                 INTEGER,           -- http.response.status_code
  error_type                  VARCHAR,           -- error.type
  error                       VARCHAR,
  request_id                  VARCHAR,           -- the provider's own identifier, for its support
  response_model              VARCHAR,           -- gen_ai.response.model
  finish_reason               VARCHAR,
  input_tokens                BIGINT,
  output_tokens               BIGINT,
  cache_read_input_tokens     BIGINT,
  cache_creation_input_tokens BIGINT,
  reasoning_output_tokens     BIGINT,
  usage_source                VARCHAR,
  counted_input_tokens        BIGINT,            -- what we counted before sending, for this model
  count_exact                 BOOLEAN,
  count_encoding              VARCHAR,
  cost_nanos                  BIGINT,
  price                       BIGINT,
  notes                       VARCHAR[],
  cost_usd DECIMAL(18,9) GENERATED ALWAYS AS
    (TRY_CAST(TRY_CAST(cost_nanos AS DECIMAL(18,0)) * CAST(0.000000001 AS DECIMAL(10,9)) AS DECIMAL(18,9))) VIRTUAL
);

CREATE TABLE stages (             -- one row a compression stage
  seq           BIGINT NOT NULL,
  position      INTEGER NOT NULL,
  stage         VARCHAR,
  tokens_before BIGINT,
  tokens_after  BIGINT,
  seconds       DOUBLE,
  lossless      BOOLEAN,
  exact         BOOLEAN,                         -- the two counts are exact for the model
  skipped       VARCHAR                          -- why it did nothing; NULL: it ran
);

CREATE TABLE verdicts (           -- one row a policy's word on a call
  seq      BIGINT NOT NULL,
  position INTEGER NOT NULL,
  policy   VARCHAR,
  outcome  VARCHAR,                              -- allow, warn, throttle, reroute, shrink, block
  message  VARCHAR
);

CREATE TABLE plans (              -- one row a routing decision; every list runs parallel to the set's models
  seq               BIGINT NOT NULL,
  strategy          VARCHAR,
  max_output_tokens BIGINT,
  seed              BIGINT,
  candidate_set     BIGINT NOT NULL,
  ranks             INTEGER[],                   -- place in the plan, 1 is best
  scores            DOUBLE[],
  propensities      DOUBLE[],
  input_tokens      BIGINT[],                    -- the prompt in each model's own tokens
  bounds            BIGINT[],                    -- the most the call could cost, nano-USD
  rejected          VARCHAR[]                    -- why it could not be tried; NULL: it could
);

CREATE TABLE candidate_sets (     -- each set of models ever considered together, once
  candidate_set BIGINT NOT NULL,                 -- from the models themselves: the same set has the same number anywhere
  models        VARCHAR[] NOT NULL               -- provider/name, sorted
);

CREATE TABLE prices (             -- each price ever charged, once
  price          BIGINT NOT NULL,                -- from the fields below: the same price has the same number anywhere
  layer          VARCHAR,                        -- whose word it is: user, provider, a profile, genai-prices, simulated
  matched        VARCHAR,
  input          BIGINT,
  output         BIGINT,
  cache_read     BIGINT,
  cache_creation BIGINT,
  reasoning      BIGINT,
  request_nanos  BIGINT,
  tier           BIGINT,                         -- the input size in tokens from which these rates hold
  version        VARCHAR,
  data_hash      VARCHAR
);

-- @version 2

CREATE TABLE ratings (            -- one row a rating; a call rated again has several, and the last counts
  seq      BIGINT NOT NULL,       -- when it was written, in the order of calls.seq
  id       VARCHAR NOT NULL,      -- calls.id
  rating   DOUBLE NOT NULL,       -- 0 bad to 1 good
  comment  VARCHAR,
  rated_at TIMESTAMPTZ NOT NULL
);

ALTER TABLE plans ADD COLUMN term_names VARCHAR[][];   -- a score is the sum of its terms: their names, by model
ALTER TABLE plans ADD COLUMN term_values DOUBLE[][];   -- and their values; NULL: planned before this was kept

ALTER TABLE calls ADD COLUMN imported VARCHAR;         -- where it was logged, if not here: litellm, otel, csv, synthetic …

-- @version 3

CREATE TABLE charges (            -- budgets touched: one row an account a call was charged to
  seq      BIGINT NOT NULL,
  position INTEGER NOT NULL,
  account  VARCHAR,               -- the budget's name, with whose account it is where each has one of its own
  period   VARCHAR,               -- the hour, day, month … the call was charged to; an id for one cell or request
  unit     VARCHAR,               -- usd (amounts in nano-USD) or tokens
  held     BIGINT,                -- the most the last try could take, reserved before it was sent
  charged  BIGINT                 -- what all tries took; less than 0 in a correction
);

ALTER TABLE calls ADD COLUMN cached_from VARCHAR;      -- calls.id whose answer was given again from the cache, unasked

-- @views

CREATE OR REPLACE VIEW candidates AS -- one row a considered model, best first within a call
SELECT seq, unnest(ranks) AS position, unnest(models) AS model, unnest(scores) AS score,
       unnest(propensities) AS propensity, unnest(input_tokens) AS input_tokens,
       unnest(bounds) / 1e9 AS bound_usd, unnest(rejected) AS rejected,
       unnest(coalesce(plans.term_names, list_transform(ranks, lambda r: NULL))) AS term_names,
       unnest(coalesce(plans.term_values, list_transform(ranks, lambda r: NULL))) AS term_values
FROM plans JOIN candidate_sets USING (candidate_set)
ORDER BY seq, position;

CREATE OR REPLACE VIEW rated_calls AS -- calls with the last rating each was given
SELECT calls.*, r.rating, r.comment, r.rated_at
FROM calls JOIN (SELECT id, arg_max(rating, seq) AS rating, arg_max_null(comment, seq) AS comment,
                        max(rated_at) AS rated_at FROM ratings GROUP BY id) r USING (id);

CREATE OR REPLACE VIEW budgets_touched AS -- what each budget's account was charged; corrections included
SELECT account, period, unit, count(*) FILTER (charged <> 0) AS calls, sum(charged)::BIGINT AS charged,
       sum(held)::BIGINT AS held, sum(charged) / nullif(sum(held), 0) AS used_of_held
FROM charges GROUP BY account, period, unit ORDER BY account, period;

CREATE OR REPLACE VIEW saved_by_cache AS -- answers given again, and what they had cost the first time
SELECT again.model, count(*) AS answers, sum(first.cost_usd)::DECIMAL(18,9) AS saved_usd,
       sum(first.total_tokens)::BIGINT AS saved_tokens
FROM calls again LEFT JOIN calls first ON first.id = again.cached_from
WHERE again.cached_from IS NOT NULL GROUP BY again.model ORDER BY saved_usd DESC;

CREATE OR REPLACE VIEW spend_daily AS -- days are local
WITH days AS ( -- the calendar is asked once for each quarter of an hour, of which every zone's days are made
  SELECT quarter, CAST(to_timestamp(quarter * 900) AS DATE) AS day
  FROM (SELECT DISTINCT started_at_ns // 900000000000 AS quarter FROM calls))
SELECT day, provider, model, count(*) AS calls, count(*) FILTER (status <> 'ok') AS failed_calls,
       sum(input_tokens)::BIGINT AS input_tokens, sum(output_tokens)::BIGINT AS output_tokens,
       sum(cost_usd)::DECIMAL(18,9) AS cost_usd, count(*) FILTER (cost_nanos IS NULL) AS unpriced_calls
FROM calls JOIN days ON started_at_ns // 900000000000 = quarter GROUP BY ALL ORDER BY ALL;

CREATE OR REPLACE VIEW compression_by_stage AS
SELECT stage, count(*) FILTER (skipped IS NULL) AS runs, count(*) FILTER (skipped IS NOT NULL) AS skips,
       sum(tokens_before) FILTER (skipped IS NULL)::BIGINT AS tokens_before,
       sum(tokens_after) FILTER (skipped IS NULL)::BIGINT AS tokens_after,
       sum(tokens_before - tokens_after) FILTER (skipped IS NULL)::BIGINT AS saved_tokens,
       sum(tokens_after) FILTER (skipped IS NULL) / nullif(sum(tokens_before) FILTER (skipped IS NULL), 0) AS kept,
       median(seconds) FILTER (skipped IS NULL) AS median_seconds, bool_and(lossless) AS lossless
FROM stages GROUP BY stage ORDER BY stage;

CREATE OR REPLACE VIEW latency_by_provider AS -- successful tries; failed ones are only counted
SELECT provider, model, tries, failed_tries, whole[1] AS p50_seconds, whole[2] AS p95_seconds, whole[3] AS p99_seconds,
       first[1] AS p50_first_chunk, first[2] AS p95_first_chunk
FROM (SELECT provider, model, count(*) AS tries, count(*) FILTER (status <> 'ok') AS failed_tries,
             quantile_cont(seconds, [0.5, 0.95, 0.99]) FILTER (status = 'ok') AS whole, -- one sorting for all three
             quantile_cont(time_to_first_chunk, [0.5, 0.95]) FILTER (status = 'ok') AS first
      FROM attempts GROUP BY provider, model)
ORDER BY provider, model;

CREATE OR REPLACE VIEW count_error_by_model AS -- our count of the prompt against what the provider billed
SELECT model, count_encoding AS encoding, bool_and(count_exact) AS exact, count(*) AS tries,
       sum(counted_input_tokens)::BIGINT AS counted_tokens, sum(input_tokens)::BIGINT AS billed_tokens,
       avg((counted_input_tokens - input_tokens) / nullif(input_tokens, 0)) AS mean_error,
       max(abs(counted_input_tokens - input_tokens) / nullif(input_tokens, 0)) AS worst_error
FROM attempts
WHERE usage_source = 'reported' AND input_tokens IS NOT NULL AND counted_input_tokens IS NOT NULL
GROUP BY model, count_encoding ORDER BY model, count_encoding;

CREATE OR REPLACE VIEW failures_by_model AS
SELECT model, error_type, count(*) AS tries, max(started_at) AS last_at, arg_max(error, started_at) AS last_error
FROM attempts WHERE status = 'error' GROUP BY model, error_type ORDER BY tries DESC;

CREATE OR REPLACE VIEW otel_calls AS
SELECT id, started_at_ns AS start_time_unix_nano, operation AS gen_ai_operation_name,
       provider AS gen_ai_provider_name, request_model AS gen_ai_request_model,
       response_model AS gen_ai_response_model, CASE WHEN finish_reason IS NOT NULL THEN [finish_reason] END AS gen_ai_response_finish_reasons,
       input_tokens AS gen_ai_usage_input_tokens, output_tokens AS gen_ai_usage_output_tokens,
       cache_read_input_tokens AS gen_ai_usage_cache_read_input_tokens,
       cache_creation_input_tokens AS gen_ai_usage_cache_creation_input_tokens,
       reasoning_output_tokens AS gen_ai_usage_reasoning_output_tokens,
       "session" AS gen_ai_conversation_id, "user" AS user_id, seconds AS gen_ai_client_operation_duration,
       error_type
FROM calls;
