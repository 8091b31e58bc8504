error: "public"."people": column "height" is text and cannot become smallint; rename the column in a query, cast it, or change the table by hand
