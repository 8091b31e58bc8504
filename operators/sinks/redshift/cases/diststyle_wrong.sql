error: diststyle: rows are spread by column "name" already; write diststyle = "key", or take the distkey away
