select c.token, c.tenant, c.status, v.version, c.flags, v.sealed, v.created, v.updated, c.erased, c.scrubbed, v.details, s.sealed
from card_versions v join cards c on c.token = v.token left join sealed s on s.id = v.sealed
where v.token = ?1 and v.version = ?2
