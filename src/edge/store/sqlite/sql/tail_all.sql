select seq, batch from tail order by seq
