select max(number) from (select number, created from webhook_notices order by number limit ?2) where created < ?1
