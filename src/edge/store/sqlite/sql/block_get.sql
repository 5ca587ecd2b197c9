select items from index_blocks where id = ?1
