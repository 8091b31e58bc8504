error: "public"."people": column "height" is bigint and cannot become smallint; add a column of another name; rename the column in a query, cast it, or change the table by hand
