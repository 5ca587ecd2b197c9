select first, heads, leaves from log_segments order by first desc limit 1
