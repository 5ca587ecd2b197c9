select first, next from log_span_tenants join log_spans using (first)
where tenant = ?1 and first >= coalesce((select max(first) from log_span_tenants where tenant = ?1 and first <= ?2), 0)
order by first
