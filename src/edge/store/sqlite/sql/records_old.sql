select v.token, c.tenant, v.version, s.id, s.sealed, null
from card_versions v join cards c on c.token = v.token join sealed s on s.id = v.sealed
where (v.token, v.version) > (?1, ?2) order by v.token, v.version limit ?3
