select c.token, c.tenant, c.status, c.version, c.flags, c.sealed, c.created, c.updated, c.erased, c.scrubbed, c.details, s.sealed
from cards c left join sealed s on s.id = c.sealed
where c.token = ?1
