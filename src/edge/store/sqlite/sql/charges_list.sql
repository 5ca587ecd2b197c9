select id, case
    when (?3 is null or status = ?3) and (?4 is null or destination = ?4)
     and (?5 is null or created >= ?5) and (?6 is null or created < ?6)
    then doc end
from charges
where tenant = ?1 and id < ?2
order by id desc limit ?7
