error: column "name" is there twice, as Redshift does not tell upper case from lower; rename one in a query
