update cards set scrubbed = ?2 where token = ?1 and scrubbed is null returning tenant
