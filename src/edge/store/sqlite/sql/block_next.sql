select min(id) from index_blocks where id >= ?1
