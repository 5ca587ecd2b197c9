select answer from answers where id = ?1
