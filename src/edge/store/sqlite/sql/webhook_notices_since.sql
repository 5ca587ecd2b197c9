select n.id, n.kind, n.created, n.body
from webhook_notices n left join webhook_deliveries d on d.notice = n.number and d.endpoint = ?2
where n.number > ?3 and n.tenant = ?1 and n.created >= ?4 and (?5 = 0 or d.state = 2)
order by n.number limit ?6
