select first, next from log_spans where id_max >= ?1 and id_min <= ?1 order by id_max
