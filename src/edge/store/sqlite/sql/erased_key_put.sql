insert into erased_keys (key, tenant, since) values (?1, ?2, ?3) on conflict (key) do nothing
