select seq, id, tenant, leaf from events where seq >= ?1 order by seq limit ?2
