error: mode: replace is for a pipeline with a [schedule], whose runs have a date; write append or merge
