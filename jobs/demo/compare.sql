-- How many of the demo's documents were read right, field by field: the documents table beside
-- the truth. Run it from the folder that holds out/demo, after `pagelake run demo`.
WITH truth AS (
    SELECT regexp_extract(uri, '[^/]+$') AS file, kind, record
    FROM read_json('jobs/demo/truth.jsonl', format = 'newline_delimited')
), found AS (
    SELECT regexp_extract(uri, '[^/]+$') AS file, state, record
    FROM 'out/demo/documents/*.parquet'
)
SELECT
    kind,
    count(*) AS documents,
    count(*) FILTER (found.state = 'ok') AS ok,
    count(*) FILTER (found.record.date = truth.record.date) AS date_right,
    count(*) FILTER (found.record.total = round(truth.record.total, 2)::DECIMAL(12, 2)) AS total_right,
    count(*) FILTER (found.record.merchant = truth.record.merchant) AS merchant_right,
    count(*) FILTER (len(found.record.items) = len(truth.record.items)) AS item_count_right
FROM truth LEFT JOIN found USING (file)
GROUP BY kind ORDER BY kind;
