select row, tenant, created, doc from charges where row > ?1 order by row limit ?2
