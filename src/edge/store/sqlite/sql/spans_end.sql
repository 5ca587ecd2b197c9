select coalesce((select next from log_spans order by first desc limit 1), 0)
