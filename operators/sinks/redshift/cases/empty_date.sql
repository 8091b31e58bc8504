BEGIN;
LOCK "public"."millstream_ledger";
-- unless
SELECT "digest" FROM "public"."millstream_ledger" WHERE "pipeline" = 'ads' AND "sink" = 'out' AND "table_name" = 'people' AND "run" = '2026-12-31' AND "digest" = 'abc';
DELETE FROM "public"."people" WHERE "run_date" >= '2026-12-31' AND "run_date" < '2027-01-01';
DELETE FROM "public"."millstream_ledger" WHERE "pipeline" = 'ads' AND "sink" = 'out' AND "table_name" = 'people' AND "run" = '2026-12-31';
INSERT INTO "public"."millstream_ledger" ("pipeline", "sink", "table_name", "run", "number", "digest", "rows", "loaded_at") VALUES ('ads', 'out', 'people', '2026-12-31', 1, 'abc', 0, '2026-11-25 03:00:00');
COMMIT;
