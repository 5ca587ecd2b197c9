insert into index_blocks (id, items) values (?1, ?2)
