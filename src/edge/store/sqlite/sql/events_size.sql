select coalesce(max(seq) + 1, 0) from events
