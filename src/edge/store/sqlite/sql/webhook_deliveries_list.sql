select n.id, n.kind, n.created, d.state, d.due, d.attempts, d.last, d.status, d.error, d.micros
from webhook_deliveries d join webhook_notices n on n.number = d.notice
where d.endpoint = ?1 and d.notice < ?2 and (?3 is null or d.state = ?3)
order by d.notice desc limit ?4
