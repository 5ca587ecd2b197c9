select seq, id, tenant, leaf from events where id = ?1
