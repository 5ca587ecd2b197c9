insert into agreements (token, id, doc) values (?1, ?2, ?3) on conflict (token, id) do update set doc = excluded.doc
