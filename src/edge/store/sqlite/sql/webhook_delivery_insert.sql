insert into webhook_deliveries (notice, endpoint, state, due, attempts) values (?1, ?2, 0, ?3, 0)
