insert into tenants (id, name, doc) values (?1, ?2, ?3) on conflict (id) do update set name = excluded.name, doc = excluded.doc
