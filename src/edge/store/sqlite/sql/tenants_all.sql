select doc from tenants order by id
