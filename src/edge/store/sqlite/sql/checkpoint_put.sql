insert into checkpoints (size, note) values (?1, ?2) on conflict (size) do update set note = excluded.note
