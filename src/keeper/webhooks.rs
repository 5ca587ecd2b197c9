//! Secrets of webhook endpoints and what is signed with them (Standard Webhooks 1.0). A secret is derived from the tenant's webhook key each
//! time that it is needed: it lies in no database, and the courier never has it.

use data_encoding::BASE64;
use ring::hmac;
use zeroize::Zeroizing;

use super::keys::KeyRing;
use super::state::unavailable;
use crate::wire::keeper::{Refusal, RefusalCode, SignWebhook, WebhookSecret};

/// The secret of one generation.
pub(super) struct Secret(Zeroizing<[u8; 32]>);

impl Secret {
    /// As its owner keeps it.
    pub(super) fn show(&self) -> String {
        format!("whsec_{}", BASE64.encode(self.0.as_slice()))
    }

    /// `v1,` and the HMAC over `id.timestamp.body`, in base64.
    fn sign(&self, ask: &SignWebhook) -> String {
        sign(self.0.as_slice(), &ask.id, ask.timestamp, &ask.body)
    }
}

/// Derives a secret: HMAC-SHA-256 under the webhook key that it names over (purpose, endpoint, generation).
pub(super) fn secret(keys: &KeyRing, which: WebhookSecret) -> Result<Secret, Refusal> {
    let key = keys.tenant(which.tenant).and_then(|keys| keys.webhook(which.key)).map_err(unavailable)?;
    let parts: [&[u8]; 3] = [b"webhook_secret/v1", which.endpoint.bytes(), &which.generation.to_be_bytes()];
    Ok(Secret(Zeroizing::new(key.sum(&parts))))
}

/// One signature for each secret that is good, the newest first.
pub(super) fn sign_with_all(keys: &KeyRing, ask: &SignWebhook) -> Result<String, Refusal> {
    let newest = secret(keys, ask.secret)?.sign(ask);
    let Some(key) = ask.before else { return Ok(newest) };
    let generation = ask.secret.generation.checked_sub(1).filter(|generation| *generation > 0);
    let generation = generation.ok_or_else(|| Refusal::of(RefusalCode::InvalidValue))?;
    let before = secret(keys, WebhookSecret { generation, key, ..ask.secret })?.sign(ask);
    Ok(format!("{newest} {before}"))
}

fn sign(secret: &[u8], id: &str, timestamp: i64, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret));
    context.update(format!("{id}.{timestamp}.").as_bytes());
    context.update(body);
    format!("v1,{}", BASE64.encode(context.sign().as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::id::{EndpointId, IdBytes};
    use crate::card::tenant::TenantId;
    use crate::keeper::keys::Kek;
    use crate::wire::keys::{HeldKey, KeyOrder, KeyPurpose};

    /// The vector that the Standard Webhooks libraries are tested with.
    #[test]
    fn the_published_vector_holds() {
        let secret = BASE64.decode(b"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature =
            sign(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b"{\"test\": 2432232314}");
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    fn keys() -> KeyRing {
        let kek = Kek::new(&[7; 32], [1; 16]).unwrap();
        let mut keys = KeyRing::default();
        for (id, tenant, version) in [(1, 1, 1), (2, 2, 1), (3, 1, 2)] {
            let tenant = Some(TenantId(tenant));
            let order = KeyOrder { id, purpose: KeyPurpose::Webhook, tenant, epoch: 0, version };
            keys.put(&kek, &HeldKey::active(kek.make_wrapped(order).unwrap())).unwrap();
        }
        keys
    }

    /// Under the tenant's first key, which has its number.
    fn of(tenant: u32, endpoint: u8, generation: u32) -> WebhookSecret {
        let endpoint = EndpointId(IdBytes([endpoint; 18]));
        WebhookSecret { tenant: TenantId(tenant), endpoint, generation, key: tenant }
    }

    #[test]
    fn each_tenant_endpoint_generation_and_key_has_a_secret_of_its_own() {
        let keys = keys();
        let show = |which| secret(&keys, which).map(|secret| secret.show()).unwrap();
        let under_next = WebhookSecret { key: 3, ..of(1, 1, 1) };
        let all = [of(1, 1, 1), of(1, 1, 2), of(1, 2, 1), of(2, 1, 1), under_next].map(show);
        let apart: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(apart.len(), all.len());
        assert_eq!(show(of(1, 1, 1)), all[0]);
        assert!(secret(&keys, of(3, 1, 1)).is_err());
        // A key of another tenant is none.
        assert!(secret(&keys, WebhookSecret { key: 2, ..of(1, 1, 1) }).is_err());
    }

    #[test]
    fn two_secrets_sign_while_they_rotate_and_never_more() {
        let keys = keys();
        let ask = |generation, before| SignWebhook {
            secret: of(1, 1, generation),
            before,
            id: "msg_1".to_owned(),
            timestamp: 5,
            body: b"{}".to_vec(),
        };
        let signed = |generation, before| sign_with_all(&keys, &ask(generation, before));
        let (one, two) = (signed(1, None).unwrap(), signed(2, None).unwrap());
        assert_eq!(signed(2, Some(1)).unwrap(), format!("{two} {one}"));
        for (generation, before) in [(1, 1), (0, 1), (2, 9)] {
            assert!(signed(generation, Some(before)).is_err(), "{generation} {before}");
        }
        // Each is derived from the key that it names, also while one takes over from the other.
        let moved = SignWebhook { secret: WebhookSecret { key: 3, ..of(1, 1, 2) }, ..ask(2, Some(1)) };
        let moved = sign_with_all(&keys, &moved).unwrap();
        assert!(moved.ends_with(&format!(" {one}")) && !moved.starts_with(&two), "{moved}");
        let shown = secret(&keys, of(1, 1, 1)).unwrap().show();
        let key = BASE64.decode(shown.strip_prefix("whsec_").unwrap().as_bytes()).unwrap();
        assert_eq!(sign(&key, "msg_1", 5, b"{}"), one);
    }

    #[test]
    fn a_webhook_key_that_others_know_signs_nothing_and_a_retired_one_does() {
        use crate::wire::keys::KeyState::{Active, Compromised, Destroyed, Retired};
        let kek = Kek::new(&[7; 32], [1; 16]).unwrap();
        let order =
            KeyOrder { id: 1, purpose: KeyPurpose::Webhook, tenant: Some(TenantId(1)), epoch: 0, version: 1 };
        let held = HeldKey::active(kek.make_wrapped(order).unwrap());
        let mut keys = KeyRing::default();
        for (state, signs) in [(Active, true), (Retired, true), (Compromised, false), (Destroyed, false)] {
            keys.put(&kek, &HeldKey { state, ..held.clone() }).unwrap();
            assert_eq!(secret(&keys, of(1, 1, 1)).is_ok(), signs, "{}", state.name());
        }
    }
}
