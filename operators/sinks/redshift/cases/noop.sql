BEGIN;
LOCK "public"."millstream_ledger";
-- unless
SELECT "digest" FROM "public"."millstream_ledger" WHERE "pipeline" = 'ads' AND "sink" = 'out' AND "table_name" = 'people' AND "run" = '64f' AND "number" = 1;
CREATE TABLE IF NOT EXISTS "public"."people" ("name" varchar(7) not null, "loaded_by" varchar(9) default 'us', "height" smallint) DISTKEY ("name");
CREATE TEMPORARY TABLE "millstream_stage" ("name" varchar(7), "height" smallint);
COPY "millstream_stage" FROM 's3://staging/it''s/1.manifest' IAM_ROLE 'arn:aws:iam::123456789012:role/copy' FORMAT AS PARQUET MANIFEST;
INSERT INTO "public"."people" ("name", "height") SELECT "name", "height" FROM "millstream_stage";
DROP TABLE "millstream_stage";
INSERT INTO "public"."millstream_ledger" ("pipeline", "sink", "table_name", "run", "number", "digest", "rows", "loaded_at") VALUES ('ads', 'out', 'people', '64f', 1, 'abc', 3, '2026-11-25 03:00:00');
COMMIT;
