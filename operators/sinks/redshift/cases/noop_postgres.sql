BEGIN;
LOCK TABLE "public"."millstream_ledger" IN EXCLUSIVE MODE;
-- unless
SELECT "digest" FROM "public"."millstream_ledger" WHERE "pipeline" = 'ads' AND "sink" = 'out' AND "table_name" = 'people' AND "run" = '64f' AND "number" = 1;
CREATE TABLE IF NOT EXISTS "public"."people" ("name" varchar(7) not null, "loaded_by" varchar(9) default 'us');
-- with rows
COPY "public"."people" ("name") FROM STDIN;
INSERT INTO "public"."millstream_ledger" ("pipeline", "sink", "table_name", "run", "number", "digest", "rows", "loaded_at") VALUES ('ads', 'out', 'people', '64f', 1, 'abc', 3, '2026-11-25 03:00:00');
COMMIT;
