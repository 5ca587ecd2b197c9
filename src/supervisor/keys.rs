//! What the supervisor does with keys: which are missing, how one takes over from another, and what an administrator may ask.
//!
//! Each step is durable in the key store before the keeper goes by it, and the key store keeps what the log is to be told until the
//! edge has committed it ([`Vault::tell_of_keys`]): a supervisor that dies between two steps goes on with the next.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::confine::Role;
use super::key_store::{Making, StoredKey};
use super::vault::{READY_WITHIN, Vault};
use crate::card::id::ApprovalId;
use crate::card::tenant::TenantId;
use crate::clock::{Clock, SystemClock, Time};
use crate::erasure::ErasureTerms;
use crate::roots::RootProvider;
use crate::wire::control::{
    AdminAnswer, AdminCommand, FromEdge, FromKeeperControl, KeyStep, ToKeeperControl,
};
use crate::wire::keys::{KeyOrder, KeyPurpose, KeyState, WrappedKey};

/// Before the end of its cryptoperiod a key is told of for so long.
const WARN_SECONDS: i64 = 30 * 86_400;
/// How long the edge may take to go over all records before a key is destroyed: tens of millions.
const COUNTED_WITHIN: Duration = Duration::from_mins(5);

/// What an administrator may ask about keys.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyRequest {
    /// All keys and where they stand.
    List,
    /// All that is known of one key, by its id.
    Show(u32),
    /// Another key takes over.
    Rotate {
        /// What the key is for.
        purpose: KeyPurpose,
        /// Whose, by name; none for the installation's own.
        tenant: Option<String>,
    },
    /// A key protects nothing more.
    Retire(u32),
    /// A key is known to others, or may be.
    Compromise(u32),
    /// A key is gone for good.
    Destroy(u32),
    /// How far the records are that are sealed again.
    Progress,
    /// Another root provider wraps the KEK.
    MoveRoot(RootProvider),
}

impl Vault {
    /// Does what is asked about keys, and has the log say so; progress is the edge's to tell.
    pub(super) async fn answer_key(
        &mut self,
        request: &KeyRequest,
        actor: &str,
        id: Option<ApprovalId>,
    ) -> Result<AdminAnswer, String> {
        let done = match request {
            KeyRequest::List | KeyRequest::Progress => {
                self.count_seals().await?;
                return Ok(self.key_table());
            }
            KeyRequest::Show(key) => {
                self.count_seals().await?;
                return self.show_key(*key);
            }
            KeyRequest::Rotate { purpose, tenant } => {
                self.rotate_key(*purpose, tenant.as_deref(), actor).await
            }
            KeyRequest::MoveRoot(to) => self.move_root(*to, actor, id.is_some()).await,
            KeyRequest::Retire(key) => self.retire_key(*key, actor).await,
            KeyRequest::Compromise(key) => self.compromise_key(*key, actor).await,
            // What two persons approved may have been done before the supervisor could say so.
            KeyRequest::Destroy(key) if id.is_some() && self.known(*key)?.state == KeyState::Destroyed => {
                Ok(format!("key {key} is destroyed"))
            }
            KeyRequest::Destroy(key) => self.destroy_key(*key, Some(actor)).await,
        };
        // Keys that could not be made under a KEK past its cryptoperiod can be now.
        if done.is_ok()
            && let Err(sentence) = self.tend_keys().await
        {
            tracing::error!(reason = %sentence, "keys could not be looked after");
        }
        // What was done before something failed is in the key store, durably, and so it belongs into the log.
        self.tell_of_keys().await?;
        done.map(AdminAnswer::Done)
    }

    /// Makes keys that are missing, brings the states to what the calendar says, and has keeper and log follow.
    pub(super) async fn tend_keys(&mut self) -> Result<(), String> {
        let now = SystemClock.now();
        self.destroy_old_kek(now).await?;
        // Also one that is destroyed, and that the keeper could not be told of.
        if self.key_store.tend(now).map_err(|error| error.to_string())? || self.owes_keys {
            self.hand_keys().await?;
        }
        self.count_seals().await?;
        let orders = self.key_store.missing_keys(now);
        if orders.is_empty() { Ok(()) } else { self.make_keys(orders, Making::default()).await }
    }

    /// Has the edge write into the log what it has not been told of keys, and take the keys as they stand.
    pub(super) async fn tell_of_keys(&mut self) -> Result<(), String> {
        let recorded = self.key_store.recorded().to_vec();
        if !recorded.is_empty() {
            let events: Vec<_> = recorded.iter().map(|told| told.event).collect();
            self.ask_edge(AdminCommand::Record(recorded)).await?;
            self.key_store.forget_recorded(&events).map_err(|error| error.to_string())?;
        }
        let changes = self.key_store.untold().to_vec();
        if changes.is_empty() {
            return Ok(());
        }
        let events: Vec<_> = changes.iter().map(|change| change.event).collect();
        let keys = self.key_store.table(&self.policy);
        self.ask_edge(AdminCommand::KeysChanged { changes, keys }).await?;
        self.key_store.told(&events).map_err(|error| error.to_string())
    }

    /// Has the edge carry out a command and waits for its answer.
    pub(super) async fn ask_edge(&mut self, command: AdminCommand) -> Result<AdminAnswer, String> {
        // All records are gone over before a key is released.
        let limit =
            if matches!(command, AdminCommand::ReleaseKey { .. }) { COUNTED_WITHIN } else { READY_WITHIN };
        let own = self.number_own_command();
        self.command_edge(own, command)?;
        let answer = self
            .await_within(limit, Role::Edge, |said| {
                let Some(FromEdge::Admin(number, answer)) = said.edge() else { return None };
                (*number == own).then(|| answer.clone())
            })
            .await?;
        match answer {
            AdminAnswer::Refused(sentence) => Err(sentence),
            AdminAnswer::Done(_) | AdminAnswer::Credential { .. } | AdminAnswer::Table(_) => Ok(answer),
        }
    }

    /// Has the keeper make and wrap keys; the key store keeps them, then they are used. A KEK whose cryptoperiod is over wraps none.
    async fn make_keys(&mut self, orders: Vec<KeyOrder>, making: Making<'_>) -> Result<(), String> {
        let now = SystemClock.now();
        if self.key_store.kek().is_some_and(|kek| kek.protects_until(&self.policy) <= now) {
            return Err("the cryptoperiod of the KEK is over; run `cardvault keys rotate kek`".to_owned());
        }
        let number = self.number_own_command();
        self.tell_keeper(&ToKeeperControl::MakeKeys { number, orders })?;
        let made = self.await_keys(number).await?;
        self.key_store.add_keys(&made, now, making).map_err(|error| error.to_string())?;
        self.hand_keys().await
    }

    /// The keeper's answer of this number; one to a question that nobody waits for any more is passed over.
    pub(super) async fn await_keys(&mut self, asked: u64) -> Result<Vec<WrappedKey>, String> {
        self.await_from(Role::Keeper, |said| {
            let Some(FromKeeperControl::Keys { number, keys }) = said.keeper() else { return None };
            (*number == asked).then(|| keys.clone())
        })
        .await
    }

    /// Hands the keeper all keys as they stand.
    async fn hand_keys(&mut self) -> Result<(), String> {
        self.owes_keys = true;
        let held = self.key_store.handed(&self.policy, SystemClock.now());
        self.tell_keeper(&ToKeeperControl::UseKeys(held))?;
        self.await_keeper_ready().await?;
        self.owes_keys = false;
        Ok(())
    }

    /// Takes over what data keys have sealed since the keeper was asked last.
    async fn count_seals(&mut self) -> Result<(), String> {
        self.tell_keeper(&ToKeeperControl::CountSeals)?;
        let seals = self
            .await_from(Role::Keeper, |said| {
                let Some(FromKeeperControl::Seals(seals)) = said.keeper() else { return None };
                Some(seals.clone())
            })
            .await?;
        self.key_store.count_seals(&seals).map_err(|error| error.to_string())
    }

    /// A key takes over from the active one of its purpose; of a data key, the records of all older ones are sealed again.
    async fn rotate_key(
        &mut self,
        purpose: KeyPurpose,
        tenant: Option<&str>,
        actor: &str,
    ) -> Result<String, String> {
        let tenant = match tenant {
            None => None,
            Some(name) => Some(self.key_store.tenant(name).ok_or("there is no tenant of this name")?.id),
        };
        match (purpose, tenant) {
            (KeyPurpose::Kek, None) => self.rotate_kek(KeyState::Retired, actor).await,
            (KeyPurpose::Kek, Some(_)) => Err("the KEK is the installation's: leave --tenant out".to_owned()),
            (
                KeyPurpose::Data | KeyPurpose::Fingerprint | KeyPurpose::Pseudonym | KeyPurpose::Webhook,
                Some(tenant),
            ) => {
                let making = Making { actor: Some(actor), empties: true, compromised: None };
                self.succeed(purpose, tenant, making).await
            }
            (
                KeyPurpose::Data | KeyPurpose::Fingerprint | KeyPurpose::Pseudonym | KeyPurpose::Webhook,
                None,
            ) => Err("this key is a tenant's: name it with --tenant".to_owned()),
            (KeyPurpose::BodyMac | KeyPurpose::Checkpoint, _) => {
                Err("this version rotates kek, data, fingerprint, pseudonym and webhook".to_owned())
            }
        }
    }

    async fn succeed(
        &mut self,
        purpose: KeyPurpose,
        tenant: TenantId,
        making: Making<'_>,
    ) -> Result<String, String> {
        let order = self.key_store.successor(purpose, Some(tenant), SystemClock.now());
        self.make_keys(vec![order], making).await?;
        let id = order.id;
        Ok(match purpose {
            KeyPurpose::Data if making.empties => format!(
                "key {id} seals for the tenant now; what older keys have sealed is being sealed again: see `cardvault keys progress`"
            ),
            KeyPurpose::Fingerprint if making.empties => format!(
                "numbers are hashed under key {id} now, and under the one before until that is destroyed; what is stored is being \
                 hashed anew: see `cardvault keys progress`"
            ),
            KeyPurpose::Webhook => format!(
                "new secrets of webhook endpoints are derived from key {id} now; an endpoint keeps the secret that it has until its owner \
                 rotates it, and the key before is needed as long"
            ),
            KeyPurpose::Kek
            | KeyPurpose::Data
            | KeyPurpose::Fingerprint
            | KeyPurpose::BodyMac
            | KeyPurpose::Pseudonym
            | KeyPurpose::Checkpoint => format!("key {id} is the {} key of the tenant now", purpose.name()),
        })
    }

    /// No record is left under these keys.
    pub(super) fn note_emptied(&mut self, keys: &[u32]) {
        if let Err(error) = self.key_store.set_emptying(keys, false) {
            tracing::error!(reason = %error, "that keys are empty could not be noted");
            return;
        }
        let keys = self.key_store.table(&self.policy);
        let own = self.number_own_command();
        // An edge that is gone begins with the keys as they stand.
        drop(self.command_edge(own, AdminCommand::KeysChanged { changes: Vec::new(), keys }));
    }

    /// Takes the steps that the edge has asked for: keys that may have sealed what is erased are emptied, and then destroyed. What fails
    /// keeps none of the others back, and is asked for again.
    pub(super) async fn take_due_steps(&mut self) -> Result<(), String> {
        let mut emptied = Vec::new();
        for (id, step) in std::mem::take(&mut self.due) {
            match self.take_step(id, step).await {
                Ok(true) => emptied.push(id),
                Ok(false) => {}
                Err(sentence) => {
                    tracing::error!(key = id, reason = %sentence, "a key could not be brought nearer to its end");
                }
            }
        }
        if emptied.is_empty() {
            return Ok(());
        }
        self.key_store.set_emptying(&emptied, true).map_err(|error| error.to_string())?;
        let keys = self.key_store.table(&self.policy);
        self.ask_edge(AdminCommand::KeysChanged { changes: Vec::new(), keys }).await.map(drop)
    }

    /// Takes one of them, and gives whether the key is to be emptied, which is done for all at once. A step that is not possible any
    /// more, because somebody else took it, is passed over.
    async fn take_step(&mut self, id: u32, step: KeyStep) -> Result<bool, String> {
        let key = self.key_store.key(id).filter(|key| key.purpose == KeyPurpose::Data && !key.emptying);
        let Some(key) = key else { return Ok(false) };
        if not_before(key, step, self.config.erasure.terms()).is_none_or(|from| SystemClock.now() < from) {
            tracing::warn!(key = id, "the edge asks for a step of a key sooner than it can be due; it waits");
            return Ok(false);
        }
        let (tenant, state) = (key.tenant, key.state);
        match (step, state, tenant) {
            (KeyStep::Empty, KeyState::Active, Some(tenant)) => {
                let making = Making { actor: None, empties: true, compromised: None };
                self.succeed(KeyPurpose::Data, tenant, making).await?;
                tracing::info!(key = id, "another key took over, as cards were erased under this one");
            }
            (KeyStep::Empty, KeyState::Retired | KeyState::Compromised, _) => return Ok(true),
            (KeyStep::Destroy, KeyState::Retired | KeyState::Compromised, _) => {
                self.destroy_key(id, None).await?;
                tracing::info!(key = id, "a key that may have sealed what is erased is destroyed");
            }
            (KeyStep::Empty | KeyStep::Destroy, ..) => {}
        }
        Ok(false)
    }

    /// A key protects nothing more from now on: another takes over, and what it has sealed stays as it is.
    async fn retire_key(&mut self, id: u32, actor: &str) -> Result<String, String> {
        let key = self.known(id)?;
        match (key.purpose, key.tenant, key.state) {
            (
                KeyPurpose::Data | KeyPurpose::Fingerprint | KeyPurpose::Pseudonym | KeyPurpose::Webhook,
                Some(tenant),
                KeyState::Active,
            ) => {
                let making = Making { actor: Some(actor), empties: false, compromised: None };
                self.succeed(key.purpose, tenant, making).await
            }
            (KeyPurpose::Kek, _, KeyState::Active) => self.rotate_kek(KeyState::Retired, actor).await,
            (_, _, KeyState::Active) => {
                Err("this version can replace kek, data, fingerprint, pseudonym and webhook keys only"
                    .to_owned())
            }
            (_, _, state) => {
                Err(format!("a key that is {} cannot be retired: it is not in use", state.name()))
            }
        }
    }

    /// A key is known to others, or may be: another takes over at once, and what it protects is moved away first of all.
    async fn compromise_key(&mut self, id: u32, actor: &str) -> Result<String, String> {
        let key = self.known(id)?;
        let (purpose, tenant, state) = (key.purpose, key.tenant, key.state);
        match (purpose, tenant, state) {
            (KeyPurpose::Kek, _, KeyState::Active) => {
                // What was wrapped under it may have been unwrapped by others: the checklist goes on from here.
                let done = self.rotate_kek(KeyState::Compromised, actor).await?;
                return Ok(format!("{done}\n{}", checklist(purpose)));
            }
            (KeyPurpose::Kek, _, _) => {
                return Err("it is not in use: nothing is wrapped under it".to_owned());
            }
            (
                KeyPurpose::Data | KeyPurpose::Fingerprint | KeyPurpose::Pseudonym | KeyPurpose::Webhook,
                Some(tenant),
                KeyState::Active,
            ) => {
                let making = Making { actor: Some(actor), empties: true, compromised: Some(id) };
                self.succeed(purpose, tenant, making).await?;
            }
            (
                KeyPurpose::Data | KeyPurpose::Fingerprint | KeyPurpose::Pseudonym | KeyPurpose::Webhook,
                _,
                _,
            ) => {
                let now = SystemClock.now();
                self.key_store.compromise(id, now, actor).map_err(|error| error.to_string())?;
                self.hand_keys().await?;
            }
            (KeyPurpose::BodyMac | KeyPurpose::Checkpoint, ..) => {
                return Err(
                    "this version can replace kek, data, fingerprint, pseudonym and webhook keys only"
                        .to_owned(),
                );
            }
        }
        Ok(format!("key {id} is compromised and protects nothing more\n{}", checklist(purpose)))
    }

    fn known(&self, id: u32) -> Result<&StoredKey, String> {
        self.key_store
            .key(id)
            .ok_or_else(|| "there is no key of this id; see `cardvault keys list`".to_owned())
    }

    /// A key is gone for good. The edge says first that no record needs it, and takes none under it any more.
    async fn destroy_key(&mut self, id: u32, actor: Option<&str>) -> Result<String, String> {
        let key = self.known(id)?;
        if key.purpose == KeyPurpose::Kek {
            return Err(
                "a KEK is destroyed by the vault itself, at its provider, once another has taken over"
                    .to_owned(),
            );
        }
        if !key.state.may_become(KeyState::Destroyed) {
            return Err(format!(
                "a key that is {} cannot be destroyed: rotate it first (`cardvault keys rotate {}`)",
                key.state.name(),
                key.purpose.name()
            ));
        }
        if matches!(key.purpose, KeyPurpose::Data | KeyPurpose::Fingerprint | KeyPurpose::Webhook) {
            self.ask_edge(AdminCommand::ReleaseKey { key: id }).await?;
        }
        let now = SystemClock.now();
        let destroyed = self.key_store.set_state(id, KeyState::Destroyed, now, actor);
        destroyed.map_err(|error| error.to_string())?;
        self.hand_keys().await?;
        let provider = self.key_store.kek().and_then(|kek| kek.provider.as_deref());
        let then = match provider.and_then(RootProvider::from_name) {
            Some(RootProvider::Shares) => {
                "destroy every such copy, or have custodians replace the secret and destroy the old shares"
            }
            Some(provider) if !provider.destroys() => {
                "destroy every such copy; one opens for as long as the root key that wraps every KEK is there"
            }
            Some(_) | None => "`cardvault keys rotate kek` makes every such copy useless",
        };
        Ok(format!(
            "key {id} is destroyed here; a copy of the key store from before still holds it, wrapped: {then}"
        ))
    }

    /// All keys, a line each.
    fn key_table(&self) -> AdminAnswer {
        let head = [
            "id",
            "purpose",
            "tenant",
            "epoch",
            "version",
            "state",
            "made",
            "protects until",
            "seals",
            "kcv",
            "",
        ];
        let now = SystemClock.now();
        let line = |key: &StoredKey| {
            let until = key.protects_until(&self.policy);
            let note =
                if key.emptying { "being emptied" } else { self.warning(key, now).unwrap_or_default() };
            vec![
                key.id.to_string(),
                key.purpose.name().to_owned(),
                self.tenant_name(key.tenant),
                if key.epoch == 0 { String::new() } else { month(key.epoch) },
                key.version.to_string(),
                key.state.name().to_owned(),
                date(key.made_at),
                date(until),
                if key.purpose == KeyPurpose::Data { key.seals.to_string() } else { String::new() },
                key.check_value.clone(),
                note.to_owned(),
            ]
        };
        let lines = self.key_store.keys().iter().map(line);
        AdminAnswer::Table(std::iter::once(head.map(str::to_owned).to_vec()).chain(lines).collect())
    }

    /// All that is known of one key.
    fn show_key(&self, id: u32) -> Result<AdminAnswer, String> {
        let key = self.known(id)?;
        let until = key.protects_until(&self.policy);
        let mut lines = vec![
            vec!["key".to_owned(), id.to_string()],
            vec!["purpose".to_owned(), key.purpose.name().to_owned()],
            vec!["tenant".to_owned(), self.tenant_name(key.tenant)],
            vec!["epoch".to_owned(), if key.epoch == 0 { String::new() } else { month(key.epoch) }],
            vec!["version".to_owned(), key.version.to_string()],
            vec!["state".to_owned(), key.state.name().to_owned()],
            vec![
                "cryptoperiod".to_owned(),
                format!("{} days, until {}", self.policy.cryptoperiod_days(key.purpose), date(until)),
            ],
            vec!["seals".to_owned(), key.seals.to_string()],
            vec!["key check value".to_owned(), key.check_value.clone()],
        ];
        if let Some(provider) = &key.provider {
            lines.push(vec!["wrapped by".to_owned(), provider.clone()]);
        }
        lines.extend(key.history.iter().map(|step| {
            let who = step.actor.as_deref().unwrap_or("the vault");
            vec![step.at.to_string(), format!("{} ({who})", step.state.name())]
        }));
        Ok(AdminAnswer::Table(lines))
    }

    /// What somebody has to know of a key in use whose cryptoperiod ends.
    fn warning(&self, key: &StoredKey, now: Time) -> Option<&'static str> {
        let until = key.protects_until(&self.policy);
        let next = |other: &StoredKey| {
            (other.purpose, other.tenant, other.state) == (key.purpose, key.tenant, KeyState::Pending)
        };
        if key.state != KeyState::Active || self.key_store.keys().iter().any(next) {
            None
        } else if until <= now {
            Some("EXPIRED: rotate it")
        } else if until <= now.plus_seconds(WARN_SECONDS) {
            Some("expires soon: rotate it")
        } else {
            None
        }
    }

    fn tenant_name(&self, id: Option<TenantId>) -> String {
        let tenant = self.key_store.tenants().iter().find(|tenant| Some(tenant.id) == id);
        tenant.map_or_else(String::new, |tenant| tenant.name.clone())
    }
}

/// From when on a step that the edge asks for can be due, by the key's own history: no card was erased under the key before it was in
/// use, and it goes no sooner after the take-over than planned. None if never, as it stands.
fn not_before(key: &StoredKey, step: KeyStep, terms: ErasureTerms) -> Option<Time> {
    let (rotate, destroy) = (terms.rotate_after_seconds(), terms.destroy_after_seconds());
    let first = |states: &[KeyState]| key.history.iter().find(|step| states.contains(&step.state));
    match (step, key.state) {
        (KeyStep::Empty, KeyState::Active) => Some(first(&[KeyState::Active])?.at.plus_seconds(rotate)),
        (KeyStep::Empty, _) => Some(key.made_at),
        (KeyStep::Destroy, _) => {
            Some(first(&[KeyState::Retired, KeyState::Compromised])?.at.plus_seconds(destroy - rotate))
        }
    }
}

/// What people have to do when a key is known to others (PCI DSS 3.7.5, 12.10).
const fn checklist(purpose: KeyPurpose) -> &'static str {
    match purpose {
        KeyPurpose::Kek => {
            "checklist:\n\
             1. every key that was wrapped under the old KEK may be known: `cardvault keys compromise` each data, fingerprint,\n\
                pseudonym and webhook key; body_mac and checkpoint keys cannot be replaced in this version: plan a new installation\n\
             2. find every copy of the key store that was wrapped under it (backups!) and destroy it\n\
             3. wait for `cardvault keys progress` to say that nothing is left, then `cardvault keys destroy` each\n\
             4. replace whoever, and whatever, had access to the root key; write down what happened (12.10)"
        }
        KeyPurpose::Webhook => {
            "checklist:\n\
             1. nothing is posted to an endpoint whose newest secret is derived from the key; what it is told of waits. Have each owner\n\
                rotate the endpoint's secret (`rotate_secret`), and doubt what receivers were told meanwhile\n\
             2. `cardvault keys destroy` it, which says how many endpoints have not\n\
             3. find out who had it; write down what happened (12.10)"
        }
        KeyPurpose::Data
        | KeyPurpose::Fingerprint
        | KeyPurpose::BodyMac
        | KeyPurpose::Pseudonym
        | KeyPurpose::Checkpoint => {
            "checklist:\n\
             1. wait for `cardvault keys progress` to say that nothing is left under the key\n\
             2. `cardvault keys destroy` it; destroy backups that hold both it and what it sealed\n\
             3. find out who had it and what they could read; write down what happened (12.10)\n\
             4. tell the acquirer if card numbers may be known"
        }
    }
}

/// `2026-12`.
fn month(epoch: u32) -> String {
    format!("{:04}-{:02}", epoch / 12, epoch % 12 + 1)
}

/// `2026-12-01`.
fn date(time: Time) -> String {
    time.to_string().chars().take(10).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const DAY_MICROS: i64 = 86_400_000_000;

    /// A data key made on day 1, in use since day 2, and in the last of these states since the day beside it.
    fn key(then: &[(&str, i64)]) -> StoredKey {
        let steps = [("pending", 1), ("active", 2)].iter().chain(then);
        let history: Vec<_> = steps
            .map(|(state, day)| json!({ "state": state, "at": day * DAY_MICROS, "actor": null }))
            .collect();
        let state = then.last().map_or("active", |(state, _)| state);
        let key = json!({
            "id": 7, "purpose": "data", "tenant": 1, "epoch": 1, "version": 1, "state": state, "made_at": DAY_MICROS, "seals": 0,
            "emptying": false, "wrapped": "", "check_value": "", "history": history,
        });
        serde_json::from_value(key).unwrap()
    }

    #[test]
    fn no_edge_hurries_a_key_to_its_end() {
        let terms = ErasureTerms { destroy_within_days: 30, key_backups_kept_days: 0 };
        let from =
            |then: &[(&str, i64)], step| Some(not_before(&key(then), step, terms)?.micros / DAY_MICROS);
        assert_eq!(from(&[], KeyStep::Empty), Some(2 + 15));
        assert_eq!(from(&[], KeyStep::Destroy), None);
        assert_eq!(from(&[("retired", 20)], KeyStep::Empty), Some(1));
        assert_eq!(from(&[("retired", 20)], KeyStep::Destroy), Some(20 + 13));
        // That it is known to others as well changes nothing in how long backups of the cards need it.
        assert_eq!(from(&[("retired", 20), ("compromised", 30)], KeyStep::Destroy), Some(20 + 13));
        assert_eq!(from(&[("compromised", 20)], KeyStep::Destroy), Some(20 + 13));
    }
}
