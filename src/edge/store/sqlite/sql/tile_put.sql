insert into tree (level, idx, hash) values (?1, ?2, ?3)
