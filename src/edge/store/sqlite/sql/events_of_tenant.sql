select seq, id, tenant, leaf from events where tenant = ?3 and seq >= ?1 order by seq limit ?2
