error: "public"."people": column "height" is text and cannot become smallint: a column's type is not changed under its rows; rename the column in a query, cast it, or change the table by hand
