delete from webhook_endpoints where tenant = ?1 and id = ?2
