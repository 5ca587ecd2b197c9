select c.token, c.tenant, c.status, c.version, c.flags, null, c.created, c.updated, c.erased, c.scrubbed, c.details, null
from cards c
where c.token > ?1 and c.token < ?2 order by c.token limit ?3
