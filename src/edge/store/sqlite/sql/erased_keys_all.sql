select key, tenant, since, emptied, destroyed from erased_keys order by key
