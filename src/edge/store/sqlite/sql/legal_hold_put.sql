insert into legal_holds (token, reference, since) values (?1, ?2, ?3) on conflict (token, reference) do nothing
