delete from charges where tenant = ?1 and id = ?2
