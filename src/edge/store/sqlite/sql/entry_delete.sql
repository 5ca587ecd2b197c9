delete from entries where key = ?1
