-- The charge of whichever tenant: charges are found by tenant and id, and tenants are few.
with recursive tenants_of_charges (tenant) as (
    select min(tenant) from charges
    union all
    select (select min(c.tenant) from charges c where c.tenant > t.tenant) from tenants_of_charges t where t.tenant is not null
)
select exists (
    select 1 from tenants_of_charges t join charges c on c.tenant = t.tenant and c.id = ?1
)
