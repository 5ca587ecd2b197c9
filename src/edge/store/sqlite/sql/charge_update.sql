update charges set created = ?3, status = ?4, destination = ?5, doc = ?6 where tenant = ?1 and id = ?2
