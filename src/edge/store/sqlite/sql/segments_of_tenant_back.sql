select first, heads, leaves from log_segments where first >= ?2 and first < ?3 and instr(heads, ?1) > 0 order by first desc
