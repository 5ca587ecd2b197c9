update cards set status = ?2, version = ?3, flags = ?4, sealed = ?5, updated = ?6, erased = ?7, details = ?8 where token = ?1
