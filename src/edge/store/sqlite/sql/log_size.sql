select coalesce((select first + count from log_segments order by first desc limit 1), 0)
