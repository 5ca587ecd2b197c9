select l.id, l.verdict, l.other, l.doc, m.charge, m.refused, c.status
from invoice_run_lines l
left join invoice_run_marks m on m.id = l.id
left join charges c on c.tenant = ?4 and c.id = m.charge
where l.id >= ?1 and l.id < ?2
order by l.id limit ?3
