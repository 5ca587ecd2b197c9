insert into webhook_expiring (token, version) values (?1, ?2)
on conflict (token) do update set version = excluded.version where version < excluded.version
