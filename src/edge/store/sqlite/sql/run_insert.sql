insert into index_runs (run, level, firsts) values (?1, ?2, ?3)
