delete from webhook_notices where number <= ?1
