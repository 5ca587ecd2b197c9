update index_blocks set items = ?2 where id = ?1
