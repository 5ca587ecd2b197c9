with recursive named (tenant) as (
    select min(tenant) from events where tenant > -1
    union all
    select (select min(tenant) from events where events.tenant > named.tenant) from named where named.tenant is not null
)
select (select leaf from events where events.tenant = named.tenant order by seq desc limit 1)
from named where named.tenant is not null
