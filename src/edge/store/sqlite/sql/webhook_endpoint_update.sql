update webhook_endpoints set doc = ?3 where tenant = ?1 and id = ?2
