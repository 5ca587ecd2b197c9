select id, items from index_blocks where id > ?1 order by id limit ?2
