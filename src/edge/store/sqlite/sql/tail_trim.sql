delete from tail where seq < ?1
