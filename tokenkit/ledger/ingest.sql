-- From the journal's JSON to the ledger's columns. `batch` holds (seq, id, started_at_ns, body); the tables are those
-- of the current schema, so the same statements fill the file and, for rows that must wait, a copy in memory.
-- A value of the wrong type becomes NULL, and a body that is no JSON a row of status 'unreadable': no call is dropped.

CREATE OR REPLACE TEMP TABLE staged AS
SELECT seq, id, started_at_ns, TRY(json_transform(body, '{
  "seconds": "DOUBLE", "status": "VARCHAR", "requested_model": "VARCHAR", "model": "VARCHAR", "provider": "VARCHAR",
  "operation": "VARCHAR", "finish_reason": "VARCHAR", "cost_nanos": "BIGINT", "error_type": "VARCHAR",
  "error": "VARCHAR", "cached": "BOOLEAN", "cached_from": "VARCHAR", "streamed": "BOOLEAN", "user": "VARCHAR", "session": "VARCHAR",
  "endpoint_name": "VARCHAR", "prompt": "VARCHAR", "answer": "VARCHAR", "prompt_sha256": "VARCHAR",
  "parent": "VARCHAR", "notes": ["VARCHAR"], "rating": "DOUBLE",
  "usage": {"input_tokens": "BIGINT", "output_tokens": "BIGINT", "cache_read_input_tokens": "BIGINT",
    "cache_creation_input_tokens": "BIGINT", "reasoning_output_tokens": "BIGINT", "source": "VARCHAR"},
  "price": {"layer": "VARCHAR", "matched": "VARCHAR", "input": "BIGINT", "output": "BIGINT", "cache_read": "BIGINT",
    "cache_creation": "BIGINT", "reasoning": "BIGINT", "request": "BIGINT", "tier": "BIGINT", "version": "VARCHAR",
    "data_hash": "VARCHAR", "at": "VARCHAR"},
  "plan": {"strategy": "VARCHAR", "max_output_tokens": "BIGINT", "seed": "BIGINT", "candidates": [{
    "model": "VARCHAR", "score": "DOUBLE", "propensity": "DOUBLE", "input_tokens": "JSON", "bound": "BIGINT",
    "rejected": "VARCHAR", "terms": "JSON"}]},
  "stages": [{"stage": "VARCHAR", "before": "BIGINT", "after": "BIGINT", "seconds": "DOUBLE", "lossless": "BOOLEAN",
    "exact": "BOOLEAN", "skipped": "VARCHAR"}],
  "verdicts": [{"policy": "VARCHAR", "outcome": "VARCHAR", "message": "VARCHAR"}],
  "charges": [{"account": "VARCHAR", "period": "VARCHAR", "unit": "VARCHAR", "held": "BIGINT", "charged": "BIGINT"}],
  "attempts": [{"model": "VARCHAR", "provider": "VARCHAR", "started_at": "BIGINT", "seconds": "DOUBLE",
    "first_chunk": "DOUBLE", "waited": "DOUBLE", "status": "VARCHAR", "http_status": "INTEGER",
    "error_type": "VARCHAR", "error": "VARCHAR", "request_id": "VARCHAR", "response_model": "VARCHAR",
    "finish_reason": "VARCHAR", "cost_nanos": "BIGINT", "notes": ["VARCHAR"],
    "usage": {"input_tokens": "BIGINT", "output_tokens": "BIGINT", "cache_read_input_tokens": "BIGINT",
      "cache_creation_input_tokens": "BIGINT", "reasoning_output_tokens": "BIGINT", "source": "VARCHAR"},
    "price": {"layer": "VARCHAR", "matched": "VARCHAR", "input": "BIGINT", "output": "BIGINT",
      "cache_read": "BIGINT", "cache_creation": "BIGINT", "reasoning": "BIGINT", "request": "BIGINT",
      "tier": "BIGINT", "version": "VARCHAR", "data_hash": "VARCHAR", "at": "VARCHAR"}}]
}')) AS r
FROM batch;

CREATE OR REPLACE TEMP MACRO since_epoch(nanos) AS make_timestamp(nanos // 1000) AT TIME ZONE 'UTC';

-- The number of a set or a price comes from its content, so two processes need not agree on one.
CREATE OR REPLACE TEMP MACRO numbered(content) AS CAST('0x' || substr(md5(content), 1, 15) AS BIGINT);

CREATE OR REPLACE TEMP MACRO price_number(p) AS
  CASE WHEN p IS NOT NULL THEN numbered(to_json(struct_pack(
    a := p.layer, b := p.matched, c := p.input, d := p.output, e := p.cache_read, f := p.cache_creation,
    g := p.reasoning, h := coalesce(p.request, 0), i := coalesce(p.tier, 0), j := p.version, k := p.data_hash
  ))::VARCHAR) END;

CREATE OR REPLACE TEMP TABLE staged_plans AS
WITH ordered AS (
  SELECT seq, r.plan AS plan, list_sort(list_transform(list_filter(r.plan.candidates, lambda c: c.model IS NOT NULL), lambda c, i: struct_pack(
    model := c.model, "rank" := i, score := c.score, propensity := coalesce(c.propensity, 0),
    tokens := TRY_CAST(c.input_tokens ->> '$[0]' AS BIGINT), exact := TRY_CAST(c.input_tokens ->> '$[1]' AS BOOLEAN),
    encoding := c.input_tokens ->> '$[2]', bound := c.bound, rejected := c.rejected,
    names := coalesce(json_extract_string(c.terms, '$[*][0]'), []),
    terms := coalesce(TRY_CAST(json_extract(c.terms, '$[*][1]') AS DOUBLE[]), [])))) AS cs
  FROM staged WHERE r.plan IS NOT NULL
)
SELECT seq, plan.strategy AS strategy, plan.max_output_tokens AS max_output_tokens, plan.seed AS seed, cs,
       list_transform(cs, lambda c: c.model) AS models,
       numbered(coalesce(array_to_string(list_transform(cs, lambda c: c.model), chr(10)), '')) AS candidate_set,
       CASE WHEN len(cs) <= 64 THEN CAST(coalesce(list_sum(list_transform(cs, lambda c, i:
         CASE WHEN c.rejected IS NULL THEN CAST(1 AS UBIGINT) << (i - 1) ELSE CAST(0 AS UBIGINT) END)), 0)
         AS UBIGINT) END AS candidate_mask
FROM ordered;

INSERT INTO candidate_sets BY NAME
SELECT DISTINCT candidate_set, models FROM staged_plans
WHERE models IS NOT NULL AND candidate_set NOT IN (SELECT candidate_set FROM candidate_sets);

INSERT INTO plans BY NAME
SELECT seq, strategy, max_output_tokens, seed, candidate_set,
       list_transform(cs, lambda c: c."rank") AS ranks, list_transform(cs, lambda c: c.score) AS scores,
       list_transform(cs, lambda c: c.propensity) AS propensities, list_transform(cs, lambda c: c.tokens) AS input_tokens,
       list_transform(cs, lambda c: c.bound) AS bounds, list_transform(cs, lambda c: c.rejected) AS rejected,
       list_transform(cs, lambda c: c.names) AS term_names, list_transform(cs, lambda c: c.terms) AS term_values
FROM staged_plans WHERE models IS NOT NULL ORDER BY seq;

INSERT INTO prices BY NAME
SELECT price_number(p) AS price, any_value(p.layer) AS layer, any_value(p.matched) AS matched,
       any_value(p.input) AS input, any_value(p.output) AS output, any_value(p.cache_read) AS cache_read,
       any_value(p.cache_creation) AS cache_creation, any_value(p.reasoning) AS reasoning,
       coalesce(any_value(p.request), 0) AS request_nanos, coalesce(any_value(p.tier), 0) AS tier,
       any_value(p.version) AS version, any_value(p.data_hash) AS data_hash
FROM (SELECT r.price AS p FROM staged UNION ALL SELECT unnest(r.attempts).price FROM staged)
WHERE p IS NOT NULL AND price_number(p) NOT IN (SELECT price FROM prices)
GROUP BY price_number(p);

INSERT INTO attempts BY NAME
SELECT seq, position, a.model, a.provider, since_epoch(a.started_at) AS started_at, a.started_at AS started_at_ns,
       coalesce(a.seconds, 0) AS seconds, a.first_chunk AS time_to_first_chunk, coalesce(a.waited, 0) AS waited,
       coalesce(a.status, 'ok') AS status, a.http_status, a.error_type, a.error, a.request_id, a.response_model,
       a.finish_reason, a.usage.input_tokens, a.usage.output_tokens, a.usage.cache_read_input_tokens,
       a.usage.cache_creation_input_tokens, a.usage.reasoning_output_tokens,
       CASE WHEN a.usage IS NOT NULL THEN coalesce(a.usage.source, 'reported') END AS usage_source,
       counted.tokens AS counted_input_tokens, counted.exact AS count_exact, counted.encoding AS count_encoding,
       a.cost_nanos, price_number(a.price) AS price, a.notes
FROM (
  SELECT seq, position, a, list_filter(cs, lambda c: c.model = a.model)[1] AS counted
  FROM (SELECT seq, unnest(r.attempts) AS a, unnest(range(1, len(r.attempts) + 1)) AS position FROM staged)
  LEFT JOIN staged_plans USING (seq)
) ORDER BY seq, position;

INSERT INTO stages BY NAME
SELECT seq, position, s.stage, s.before AS tokens_before, s.after AS tokens_after, s.seconds, s.lossless,
       coalesce(s.exact, true) AS exact, s.skipped
FROM (SELECT seq, unnest(r.stages) AS s, unnest(range(1, len(r.stages) + 1)) AS position FROM staged)
ORDER BY seq, position;

INSERT INTO verdicts BY NAME
SELECT seq, position, v.policy, v.outcome, coalesce(v.message, '') AS message
FROM (SELECT seq, unnest(r.verdicts) AS v, unnest(range(1, len(r.verdicts) + 1)) AS position FROM staged)
ORDER BY seq, position;

INSERT INTO charges BY NAME
SELECT seq, position, c.account, c.period, c.unit, coalesce(c.held, 0) AS held, coalesce(c.charged, 0) AS charged
FROM (SELECT seq, unnest(r.charges) AS c, unnest(range(1, len(r.charges) + 1)) AS position FROM staged)
ORDER BY seq, position;

INSERT INTO calls BY NAME
SELECT seq, id, since_epoch(started_at_ns) AS started_at, started_at_ns, r.seconds,
       r.attempts[-1].first_chunk AS time_to_first_chunk, coalesce(r.status, 'unreadable') AS status,
       coalesce(r.operation, CASE WHEN r.status IS NOT NULL THEN 'chat' END) AS operation,
       r.requested_model AS request_model, r.model, r.provider, r.attempts[-1].response_model AS response_model,
       r.finish_reason, r.usage.input_tokens, r.usage.output_tokens, r.usage.cache_read_input_tokens,
       r.usage.cache_creation_input_tokens, r.usage.reasoning_output_tokens,
       CASE WHEN r.usage IS NOT NULL THEN coalesce(r.usage.source, 'reported') END AS usage_source,
       CASE WHEN len(r.stages) > 0 THEN TRY_CAST(list_sum(list_transform(r.stages, lambda s:
         CAST(s.before AS HUGEINT) - s.after)) AS BIGINT) END AS saved_tokens,
       r.cost_nanos, price_number(r.price) AS price, TRY_CAST(nullif(r.price.at, '') AS TIMESTAMPTZ) AS priced_at,
       coalesce(len(r.attempts), 0) AS tries, r.error_type, r.error, coalesce(r.cached, false) AS cached, r.cached_from,
       coalesce(r.streamed, false) AS streamed, r.user, r.session, r.endpoint_name, r.parent,
       staged_plans.candidate_set, staged_plans.candidate_mask, r.prompt, r.answer, r.prompt_sha256, r.notes
FROM staged LEFT JOIN staged_plans USING (seq) WHERE coalesce(r.operation, '') NOT IN ('rating', 'retention') ORDER BY seq;

-- A rating is written to the journal like a call, so that it is durable, chained, and copied once; here it is none.
-- Nor is the row that says which rows the journal let go.
INSERT INTO ratings BY NAME
SELECT seq, r.parent AS id, least(greatest(r.rating, 0), 1) AS rating, r.answer AS comment,
       since_epoch(started_at_ns) AS rated_at
FROM staged WHERE r.operation = 'rating' AND r.parent IS NOT NULL AND r.rating IS NOT NULL ORDER BY seq;

DROP TABLE staged;
DROP TABLE staged_plans;
