update forwards set open = ?4, answer = ?5, doc = ?6 where id = ?1 and tenant = ?2 and token = ?3
