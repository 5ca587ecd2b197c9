select first, heads, leaves from log_segments
where first >= coalesce((select max(first) from log_segments where first <= ?1), 0) order by first
