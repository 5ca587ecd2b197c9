select key, value from entries where key >= ?1 and key < ?2 order by key desc limit ?3
