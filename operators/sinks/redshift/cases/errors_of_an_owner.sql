BEGIN;
LOCK "public"."millstream_ledger";
-- unless
SELECT "digest" FROM "public"."millstream_ledger" WHERE "pipeline" = 'ads' AND "sink" = 'out' AND "table_name" = 'pipeline_errors' AND "run" = '2026-11-30' AND "digest" = 'abc';
CREATE TABLE IF NOT EXISTS "public"."pipeline_errors" ("raw_line" varchar(65535), "run_date" date, "run_pipeline" varchar(255));
DELETE FROM "public"."pipeline_errors" WHERE "run_date" >= '2026-11-30' AND "run_date" < '2026-12-01' AND "run_pipeline" = 'people:1';
COPY "public"."pipeline_errors" FROM 's3://staging/it''s/1.manifest' IAM_ROLE default FORMAT AS PARQUET MANIFEST;
DELETE FROM "public"."pipeline_errors" WHERE "run_date" < (SELECT CAST(MAX("run_date") AS date) - 29 FROM "public"."pipeline_errors" WHERE "run_pipeline" = 'people:1') AND "run_pipeline" = 'people:1';
DELETE FROM "public"."millstream_ledger" WHERE "pipeline" = 'ads' AND "sink" = 'out' AND "table_name" = 'pipeline_errors' AND "run" = '2026-11-30';
INSERT INTO "public"."millstream_ledger" ("pipeline", "sink", "table_name", "run", "number", "digest", "rows", "loaded_at") VALUES ('ads', 'out', 'pipeline_errors', '2026-11-30', 1, 'abc', 3, '2026-11-25 03:00:00');
COMMIT;
