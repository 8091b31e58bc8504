error: "public"."people": column "shape" is geometry and cannot become varchar(9); rename the column in a query, cast it, or change the table by hand
