with recursive named (tenant) as (
    select min(tenant) from log_span_tenants
    union all
    select (select min(tenant) from log_span_tenants where log_span_tenants.tenant > named.tenant)
    from named where named.tenant is not null
)
select named.tenant, (select max(first) from log_span_tenants where log_span_tenants.tenant = named.tenant)
from named where named.tenant is not null
