insert into log_span_tenants (tenant, first) values (?1, ?2)
