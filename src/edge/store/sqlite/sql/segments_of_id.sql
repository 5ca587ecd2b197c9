select first, heads, leaves from log_segments where id_max >= ?1 and id_min <= ?1 order by id_max
