BEGIN;
LOCK TABLE "public"."millstream_ledger" IN EXCLUSIVE MODE;
-- unless
SELECT "digest" FROM "public"."millstream_ledger" WHERE "pipeline" = 'ads' AND "sink" = 'out' AND "table_name" = 'people' AND "run" = '2026-11-24' AND "digest" = 'abc';
CREATE TABLE IF NOT EXISTS "public"."people" ("name" varchar(7) default 'it''s' not null, "height" smallint, "run_date" date);
DELETE FROM "public"."people" WHERE "run_date" >= '2026-11-24' AND "run_date" < '2026-11-25';
-- with rows
COPY "public"."people" ("name", "height", "run_date") FROM STDIN;
DELETE FROM "public"."millstream_ledger" WHERE "pipeline" = 'ads' AND "sink" = 'out' AND "table_name" = 'people' AND "run" = '2026-11-24';
INSERT INTO "public"."millstream_ledger" ("pipeline", "sink", "table_name", "run", "number", "digest", "rows", "loaded_at") VALUES ('ads', 'out', 'people', '2026-11-24', 1, 'abc', 3, '2026-11-25 03:00:00');
COMMIT;
