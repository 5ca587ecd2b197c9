select f.doc, a.answer from forwards f left join forward_answers a on a.id = f.answer where f.id = ?1
