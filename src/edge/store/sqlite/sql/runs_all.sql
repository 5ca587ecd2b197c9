select run, level, firsts from index_runs order by level desc, run
