select number, doc from webhook_endpoints order by number
