select c.token, c.tenant, c.version, s.id, s.sealed, s.mark_key from cards c join sealed s on s.id = c.sealed
where c.token > ?1 order by c.token limit ?2
