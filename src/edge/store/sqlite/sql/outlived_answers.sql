select id, answer from answers where id > ?1 order by id limit ?2
