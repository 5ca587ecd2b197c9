-- The salt of the customer's pseudonym in the log: random, made with the first card of the customer, beside each of its cards, and
-- zeroed with them. Without it nobody can say whom a pseudonym stood for, whatever keys he holds. Null for a card without a
-- customer, and for one that was stored before.
alter table sealed add column salt blob;
