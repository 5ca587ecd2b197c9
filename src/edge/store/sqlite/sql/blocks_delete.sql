delete from index_blocks where id >= ?1 and id < ?2
