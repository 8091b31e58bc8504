BEGIN;
LOCK TABLE "public"."millstream_ledger" IN EXCLUSIVE MODE;
-- unless
SELECT "digest" FROM "public"."millstream_ledger" WHERE "pipeline" = 'ads' AND "sink" = 'out' AND "table_name" = 'people' AND "run" = '64f' AND "number" = 1;
CREATE TABLE IF NOT EXISTS "public"."people" ("name" varchar(7) not null, "height" smallint);
CREATE TEMPORARY TABLE "millstream_stage" ("name" varchar(7), "height" smallint, "millstream_row" bigint);
-- with rows
COPY "millstream_stage" FROM STDIN;
DELETE FROM "public"."people" USING "millstream_stage" WHERE "people"."name" = "millstream_stage"."name";
INSERT INTO "public"."people" ("name", "height") SELECT "name", "height" FROM (SELECT "name", "height", ROW_NUMBER() OVER (PARTITION BY "name" ORDER BY "millstream_row" DESC) AS "millstream_rank" FROM "millstream_stage") AS "newest" WHERE "newest"."millstream_rank" = 1;
DROP TABLE "millstream_stage";
INSERT INTO "public"."millstream_ledger" ("pipeline", "sink", "table_name", "run", "number", "digest", "rows", "loaded_at") VALUES ('ads', 'out', 'people', '64f', 1, 'abc', 3, '2026-11-25 03:00:00');
COMMIT;
