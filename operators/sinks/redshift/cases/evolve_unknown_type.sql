error: "public"."people": column "shape" is geometry and cannot become varchar(9): a column's type is not changed under its rows; rename the column in a query, cast it, or change the table by hand
