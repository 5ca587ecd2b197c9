# What the vault's token may do at an OpenBao or HashiCorp Vault server, for `keys.provider = "transit"` with the mount "transit" and
# the prefix "cardvault". Give it a periodic token, which each start of a keeper and each day renew:
#
#   bao secrets enable transit
#   bao policy write cardvault deploy/openbao-policy.hcl
#   bao token create -policy=cardvault -period=768h -orphan

path "transit/keys" {
  capabilities = ["list", "read"]
}

# A key for each KEK: made, looked at, and deleted once another has taken over.
path "transit/keys/cardvault-*" {
  capabilities = ["create", "read", "update", "delete"]
}

path "transit/encrypt/cardvault-*" {
  capabilities = ["create", "update"]
}

path "transit/decrypt/cardvault-*" {
  capabilities = ["create", "update"]
}

path "auth/token/renew-self" {
  capabilities = ["update"]
}
