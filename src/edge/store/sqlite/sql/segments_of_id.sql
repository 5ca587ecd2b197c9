select first, heads, leaves from log_segments
where first >= ?2 and first < ?3 and id_max >= ?1 and id_min <= ?1 order by first
