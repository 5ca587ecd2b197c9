-- A number is found by the mark of its current version only; what versions of before keep of theirs goes.
update sealed set mark = zeroblob(length(mark)), mark_key = null where id in (select sealed from card_versions);
