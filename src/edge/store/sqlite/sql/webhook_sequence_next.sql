insert into webhook_sequences (token, last) values (?1, 1) on conflict (token) do update set last = last + 1 returning last
