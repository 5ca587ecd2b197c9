select first, heads, leaves from log_tenants join log_segments using (first)
where tenant = ?2 and first >= coalesce((select max(first) from log_tenants where tenant = ?2 and first <= ?1), 0)
order by first
