insert into log_tenants (tenant, first) values (?1, ?2)
