select first, heads, leaves from log_segments
where first >= max(?2, coalesce((select max(first) from log_segments where first <= ?4), 0)) and first < ?3
    and instr(heads, ?1) > 0
order by first
