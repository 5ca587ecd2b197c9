select leaf from events order by seq desc limit 1
