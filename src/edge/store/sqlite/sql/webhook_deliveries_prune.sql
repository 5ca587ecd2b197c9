delete from webhook_deliveries where notice <= ?1
