delete from network_declines where id in (select id from network_declines where at < ?1 and (bar is null or bar >= 0) order by at limit 1000)
