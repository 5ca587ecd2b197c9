select doc from forwards where open = 1 order by id limit ?1
