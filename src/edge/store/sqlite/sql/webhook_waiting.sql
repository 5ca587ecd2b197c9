select count(*) from (select 1 from webhook_deliveries where endpoint = ?1 and state = 0 limit ?2)
