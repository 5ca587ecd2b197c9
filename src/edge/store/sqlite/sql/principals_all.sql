select doc from principals order by id
