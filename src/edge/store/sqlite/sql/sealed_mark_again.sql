update sealed set mark = ?2, mark_key = ?3 where id = ?1
