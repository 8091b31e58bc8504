BEGIN;
LOCK "public"."millstream_ledger";
-- unless
SELECT "digest" FROM "public"."millstream_ledger" WHERE "pipeline" = 'ads' AND "sink" = 'out' AND "table_name" = 'people' AND "run" = '2026-11-24' AND "digest" = 'abc';
CREATE TABLE IF NOT EXISTS "public"."people" ("name" varchar(7) not null, "day" date) DISTKEY ("name");
DELETE FROM "public"."people" WHERE "day" >= '2026-11-24' AND "day" < '2026-11-25';
COPY "public"."people" FROM 's3://staging/it''s/1.manifest' IAM_ROLE 'arn:aws:iam::123456789012:role/copy' FORMAT AS PARQUET MANIFEST;
DELETE FROM "public"."people" WHERE "day" < (SELECT CAST(MAX("day") AS date) - 0 FROM "public"."people");
DELETE FROM "public"."millstream_ledger" WHERE "pipeline" = 'ads' AND "sink" = 'out' AND "table_name" = 'people' AND "run" = '2026-11-24';
INSERT INTO "public"."millstream_ledger" ("pipeline", "sink", "table_name", "run", "number", "digest", "rows", "loaded_at") VALUES ('ads', 'out', 'people', '2026-11-24', 1, 'abc', 3, '2026-11-25 03:00:00');
COMMIT;
