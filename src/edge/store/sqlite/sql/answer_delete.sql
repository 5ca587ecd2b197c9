delete from answers where id = ?1
