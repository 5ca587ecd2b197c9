update sealed set salt = ?2 where id = ?1
