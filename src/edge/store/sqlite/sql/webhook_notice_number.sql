select number from webhook_notices where tenant = ?1 and id = ?2
