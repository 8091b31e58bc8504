BEGIN;
LOCK "public"."millstream_ledger";
-- unless
SELECT "digest" FROM "public"."millstream_ledger" WHERE "pipeline" = 'ads' AND "sink" = 'out' AND "table_name" = 'people' AND "run" = '2026-11-24' AND "digest" = 'abc';
CREATE TABLE IF NOT EXISTS "public"."people" ("name" varchar(7) not null, "loaded_by" varchar(9) default 'us', "run_date" date) DISTKEY ("name");
DELETE FROM "public"."people" WHERE "run_date" >= '2026-11-24' AND "run_date" < '2026-11-25';
CREATE TEMPORARY TABLE "millstream_stage" ("name" varchar(7), "run_date" date, "millstream_row" bigint);
COPY "millstream_stage" FROM 's3://staging/it''s/1.manifest' IAM_ROLE 'arn:aws:iam::123456789012:role/copy' FORMAT AS PARQUET MANIFEST;
DELETE FROM "public"."people" USING "millstream_stage" WHERE "people"."name" = "millstream_stage"."name" AND "people"."run_date" < '2026-11-24';
INSERT INTO "public"."people" ("name", "run_date") SELECT "name", "run_date" FROM (SELECT "name", "run_date", ROW_NUMBER() OVER (PARTITION BY "name" ORDER BY "millstream_row" DESC) AS "millstream_rank" FROM "millstream_stage") AS "newest" WHERE "newest"."millstream_rank" = 1 AND NOT EXISTS (SELECT 1 FROM "public"."people" AS "held" WHERE "held"."name" = "newest"."name");
DROP TABLE "millstream_stage";
DELETE FROM "public"."millstream_ledger" WHERE "pipeline" = 'ads' AND "sink" = 'out' AND "table_name" = 'people' AND "run" = '2026-11-24';
INSERT INTO "public"."millstream_ledger" ("pipeline", "sink", "table_name", "run", "number", "digest", "rows", "loaded_at") VALUES ('ads', 'out', 'people', '2026-11-24', 1, 'abc', 3, '2026-11-25 03:00:00');
COMMIT;
