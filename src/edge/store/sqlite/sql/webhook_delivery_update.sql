update webhook_deliveries
set state = ?4, due = ?5, attempts = ?6, last = ?7, status = ?8, error = ?9, micros = ?10
where notice = (select number from webhook_notices where tenant = ?1 and id = ?3)
    and endpoint = (select number from webhook_endpoints where tenant = ?1 and id = ?2)
    and state = 0
