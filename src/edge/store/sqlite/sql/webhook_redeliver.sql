insert into webhook_deliveries (notice, endpoint, state, due, attempts)
select number, ?3, 0, ?4, 0 from webhook_notices where tenant = ?1 and id = ?2
on conflict (notice, endpoint) do update set state = 0, due = excluded.due, attempts = 0
