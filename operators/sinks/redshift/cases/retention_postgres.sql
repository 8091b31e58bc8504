BEGIN;
LOCK TABLE "public"."millstream_ledger" IN EXCLUSIVE MODE;
-- unless
SELECT "digest" FROM "public"."millstream_ledger" WHERE "pipeline" = 'ads' AND "sink" = 'out' AND "table_name" = 'people' AND "run" = '2026-03-01' AND "digest" = 'abc';
CREATE TABLE IF NOT EXISTS "public"."people" ("name" varchar(7) not null, "run_date" date);
DELETE FROM "public"."people" WHERE "run_date" >= '2026-03-01' AND "run_date" < '2026-03-02';
-- with rows
COPY "public"."people" ("name", "run_date") FROM STDIN;
DELETE FROM "public"."people" WHERE "run_date" < (SELECT CAST(MAX("run_date") AS date) - 6 FROM "public"."people");
DELETE FROM "public"."millstream_ledger" WHERE "pipeline" = 'ads' AND "sink" = 'out' AND "table_name" = 'people' AND "run" = '2026-03-01';
INSERT INTO "public"."millstream_ledger" ("pipeline", "sink", "table_name", "run", "number", "digest", "rows", "loaded_at") VALUES ('ads', 'out', 'people', '2026-03-01', 1, 'abc', 3, '2026-11-25 03:00:00');
COMMIT;
