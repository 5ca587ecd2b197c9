select key from entries where key >= ?1 and key < ?2 order by key limit ?3
