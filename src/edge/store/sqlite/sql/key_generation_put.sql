insert into key_generation (only, generation) values (1, ?1)
on conflict (only) do update set generation = excluded.generation where generation <= excluded.generation
