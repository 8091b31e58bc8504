BEGIN;
LOCK "public"."millstream_ledger";
-- unless
SELECT "digest" FROM "public"."millstream_ledger" WHERE "pipeline" = 'ads' AND "sink" = 'out' AND "table_name" = 'people' AND "run" = '2026-11-30' AND "digest" = 'abc';
CREATE TABLE IF NOT EXISTS "public"."people" ("name" varchar(65535), "height" smallint, "run_date" date) DISTSTYLE KEY DISTKEY ("name") SORTKEY ("height");
DELETE FROM "public"."people" WHERE "run_date" >= '2026-11-30' AND "run_date" < '2026-12-01';
COPY "public"."people" FROM 's3://staging/it''s/1.manifest' IAM_ROLE 'arn:aws:iam::123456789012:role/copy' FORMAT AS PARQUET MANIFEST;
DELETE FROM "public"."millstream_ledger" WHERE "pipeline" = 'ads' AND "sink" = 'out' AND "table_name" = 'people' AND "run" = '2026-11-30';
INSERT INTO "public"."millstream_ledger" ("pipeline", "sink", "table_name", "run", "number", "digest", "rows", "loaded_at") VALUES ('ads', 'out', 'people', '2026-11-30', 1, 'abc', 3, '2026-11-25 03:00:00');
COMMIT;
