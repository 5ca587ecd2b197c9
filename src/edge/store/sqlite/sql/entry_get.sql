select value from entries where key = ?1
