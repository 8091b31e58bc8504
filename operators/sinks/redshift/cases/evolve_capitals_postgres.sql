BEGIN;
LOCK TABLE "public"."millstream_ledger" IN EXCLUSIVE MODE;
-- unless
SELECT "digest" FROM "public"."millstream_ledger" WHERE "pipeline" = 'ads' AND "sink" = 'out' AND "table_name" = 'people' AND "run" = '64f' AND "number" = 1;
ALTER TABLE "public"."people" ADD COLUMN "Name" varchar(8);
-- with rows
COPY "public"."people" ("Name") FROM STDIN;
INSERT INTO "public"."millstream_ledger" ("pipeline", "sink", "table_name", "run", "number", "digest", "rows", "loaded_at") VALUES ('ads', 'out', 'people', '64f', 1, 'abc', 3, '2026-11-25 03:00:00');
COMMIT;
