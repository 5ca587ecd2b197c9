select hash from tree where level = ?1 and idx >= ?2 and idx < ?3 order by idx
