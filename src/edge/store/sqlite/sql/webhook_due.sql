select n.id, d.attempts, n.body
from webhook_deliveries d join webhook_notices n on n.number = d.notice
where d.endpoint = ?1 and d.state = 0 and d.due <= ?2
order by d.due limit ?3
