//! The key ceremony: n registered persons acknowledge the custodian form, a secret is made and shared among them, each share sealed to its
//! custodian, and once all have confirmed theirs the KEK is wrapped under the secret and under nothing else.
//!
//! Until the last confirmation the vault goes by what it went by before, so that a share that was lost on its way loses no card. A
//! rehearsal takes the same steps with a key that protects nothing, and is kept in memory only.

use std::collections::BTreeMap;

use data_encoding::{BASE64, HEXLOWER};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::gathering::{Gathering, Purpose};
use super::key_store::custody::{Acknowledged, Custodian, Custody, CustodyState};
use super::vault::Vault;
use crate::card::id::{EventId, PersonId};
use crate::clock::{Clock, SystemClock};
use crate::person::request::{Request, Signed, Step, digest_of};
use crate::random;
use crate::wire::control::{AdminAnswer, Recorded};
use crate::wire::unsealer::{KekSource, NewSharesSettings, Obtained, ProviderSettings, UnsealOrder};

/// What custodians acknowledge before a share is issued to them; another text is another version.
pub const FORM: &str = include_str!("../../keys/CUSTODIAN.md");
/// The verbs that custodians sign: that they acknowledge the form, want their share, have it.
pub const ACKNOWLEDGE: &str = "custody:acknowledge";
/// See [`ACKNOWLEDGE`].
pub const COLLECT: &str = "custody:collect";
/// See [`ACKNOWLEDGE`].
pub const CONFIRM: &str = "custody:confirm";

const CUSTODIANS_MAX: usize = 16;

/// A canonical request and its signature.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SignedRequest {
    /// The canonical text.
    pub text: String,
    /// The signature.
    pub signed: Signed,
}

/// What may be asked about ceremonies and shares.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CustodyRequest {
    /// What there is, as JSON.
    Status,
    /// A ceremony begins.
    Begin {
        /// How many shares give the secret back.
        threshold: u8,
        /// The custodians, by name or id.
        custodians: Vec<String>,
        /// Nothing real is made.
        rehearsal: bool,
    },
    /// A custodian acknowledges the form.
    Acknowledge(SignedRequest),
    /// The secret and its shares are made.
    Issue,
    /// A custodian wants their share, sealed.
    Collect(SignedRequest),
    /// A custodian has read their share.
    Confirm(SignedRequest),
    /// Shares are to be given to open the vault, or to see that those of a rehearsal work.
    Unseal {
        /// Of a rehearsal.
        rehearsal: bool,
    },
    /// A custodian's share.
    Give {
        /// What the custodian signs.
        request: SignedRequest,
        /// The share, sealed to the unsealer's key, base64.
        sealed: String,
    },
    /// Shares that were given are forgotten.
    Cancel,
}

/// What is under way with custodians.
#[derive(Default)]
pub(super) struct CustodyDesk {
    pending: Option<Pending>,
    pub(super) rehearsal: Option<Custody>,
    pub(super) gathering: Option<Gathering>,
}

/// A ceremony whose shares are not made yet.
struct Pending {
    ceremony: [u8; 16],
    rehearsal: bool,
    threshold: u8,
    custodians: Vec<PersonId>,
    acknowledged: BTreeMap<PersonId, Acknowledged>,
}

/// Something for the log.
pub(super) fn told(action: &str, actor: String, ceremony: String) -> Result<Recorded, String> {
    Ok(Recorded {
        event: EventId::make(SystemClock.now()).map_err(|error| error.to_string())?,
        action: action.to_owned(),
        actor: Some(actor),
        target: ("ceremony".to_owned(), ceremony),
        failed: None,
        fields: Vec::new(),
        note: None,
    })
}

impl Vault {
    /// Does what is asked about ceremonies and shares.
    pub(super) async fn answer_custody(
        &mut self,
        request: &CustodyRequest,
        actor: &str,
    ) -> Result<AdminAnswer, String> {
        let done = match request {
            CustodyRequest::Status => Ok(self.custody_facts().to_string()),
            CustodyRequest::Begin { threshold, custodians, rehearsal } => {
                self.begin_ceremony(*threshold, custodians, *rehearsal, actor)
            }
            CustodyRequest::Acknowledge(request) => self.acknowledge(request),
            CustodyRequest::Issue => self.issue(actor).await,
            CustodyRequest::Collect(request) => self.collect(request),
            CustodyRequest::Confirm(request) => self.confirm(request),
            CustodyRequest::Unseal { rehearsal } => self.begin_unsealing(*rehearsal).await,
            CustodyRequest::Give { request, sealed } => {
                let sealed = BASE64.decode(sealed.as_bytes()).unwrap_or_default();
                self.give_share(request, &sealed).await
            }
            CustodyRequest::Cancel => Ok(self.cancel_gathering()),
        };
        // What was done is in the key store, durably; a sealed vault has no log yet and tells it later.
        if self.sealed.is_none() {
            self.tell_of_keys().await?;
        }
        done.map(AdminAnswer::Done)
    }

    async fn begin_unsealing(&mut self, rehearsal: bool) -> Result<String, String> {
        if rehearsal {
            self.gather(Purpose::Rehearse).await?;
        } else if self.custody.gathering.is_none() {
            if self.sealed.is_none() {
                return Err("the vault is open: no shares are needed".to_owned());
            }
            self.gather(Purpose::Open).await?;
        }
        Ok(self.custody_facts().to_string())
    }

    /// Who signed this request for this verb, and what it is told; one of another installation, or that is void, is refused.
    pub(super) fn check_signed(
        &self,
        request: &SignedRequest,
        verb: &str,
    ) -> Result<(PersonId, Value), String> {
        let read = Request::read(&request.text).map_err(|error| error.to_string())?;
        let person = self.people.signer(&request.signed, Step::Ask, &request.text);
        let person = person.map_err(|error| error.to_string())?.id;
        let is_void = read.expires_at <= SystemClock.now();
        if read.environment != self.key_store.environment() || read.verb != verb || is_void {
            return Err("the request is void or for something else; run the command once more".to_owned());
        }
        Ok((person, read.parameters))
    }

    fn begin_ceremony(
        &mut self,
        threshold: u8,
        names: &[String],
        rehearsal: bool,
        actor: &str,
    ) -> Result<String, String> {
        self.check_no_issue()?;
        if rehearsal && self.custody.pending.as_ref().is_some_and(|pending| !pending.rehearsal) {
            return Err("a ceremony has begun: rehearse when its shares are issued".to_owned());
        }
        let mut custodians = Vec::new();
        for name in names {
            let person = self.people.find(name).map_err(|error| format!("{name}: {error}"))?;
            if person.disabled_at.is_some() {
                return Err(format!("{name} is disabled"));
            }
            // Else who administers could be all of them.
            if self.rules().two_person && !person.is_vouched {
                return Err(format!(
                    "{name} was registered by one alone, who could be every custodian: have two persons register them"
                ));
            }
            if custodians.contains(&person.id) {
                return Err(format!("{name} is named twice: nobody holds two shares of one key"));
            }
            custodians.push(person.id);
        }
        let count = custodians.len();
        if threshold < 2 || count < usize::from(threshold) || count > CUSTODIANS_MAX {
            return Err(format!(
                "name 2 to {CUSTODIANS_MAX} custodians, and a threshold of 2 up to their number (3 of 5 is usual)"
            ));
        }
        let ceremony = random::make_bytes::<16>().map_err(|error| error.to_string())?;
        let mut event = told("ceremony.begin", actor.to_owned(), HEXLOWER.encode(&ceremony))?;
        event.fields = custodians.iter().map(ToString::to_string).collect();
        event.note = Some(format!(
            "{}{threshold} of {count}, form sha256:{}",
            if rehearsal { "rehearsal, " } else { "" },
            digest_of(FORM)
        ));
        self.key_store.record(event).map_err(|error| error.to_string())?;
        let acknowledged = BTreeMap::new();
        self.custody.pending = Some(Pending { ceremony, rehearsal, threshold, custodians, acknowledged });
        Ok(format!(
            "ceremony {} has begun: each custodian acknowledges the form with `cardvault keys ceremony acknowledge`",
            HEXLOWER.encode(&ceremony)
        ))
    }

    /// While custodians give their shares for new ones, whom those are for stays as it is.
    fn check_no_issue(&self) -> Result<(), String> {
        match &self.custody.gathering {
            Some(gathering) if gathering.purpose == Purpose::Replace => Err(
                "shares are being given to make new ones; wait for that, or end it with `cardvault keys unseal --cancel`".to_owned(),
            ),
            Some(_) | None => Ok(()),
        }
    }

    fn acknowledge(&mut self, request: &SignedRequest) -> Result<String, String> {
        let (person, parameters) = self.check_signed(request, ACKNOWLEDGE)?;
        let pending = self.custody.pending.as_mut().ok_or("no ceremony has begun")?;
        let ceremony = HEXLOWER.encode(&pending.ceremony);
        if parameters != json!({"ceremony": ceremony, "form_sha256": digest_of(FORM)}) {
            return Err("this was signed for another ceremony or another version of the form".to_owned());
        }
        if !pending.custodians.contains(&person) {
            return Err("you are no custodian of this ceremony".to_owned());
        }
        let acknowledged = Acknowledged { text: request.text.clone(), signed: request.signed.clone() };
        pending.acknowledged.insert(person, acknowledged);
        let (have, of) = (pending.acknowledged.len(), pending.custodians.len());
        let mut event = told("custodian.acknowledge", person.to_string(), ceremony)?;
        event.note = Some(format!("form sha256:{}", digest_of(FORM)));
        self.key_store.record(event).map_err(|error| error.to_string())?;
        Ok(format!("{have} of {of} custodians have acknowledged the form"))
    }

    /// The custodians of the ceremony that has begun, if all of them have acknowledged the form.
    pub(super) fn new_shares(&self) -> Result<ProviderSettings, String> {
        let pending = self.custody.pending.as_ref().ok_or("no ceremony has begun")?;
        let mut custodians = Vec::new();
        for id in &pending.custodians {
            let person = self.people.find(&id.to_string()).map_err(|error| error.to_string())?;
            if person.disabled_at.is_some() || !pending.acknowledged.contains_key(id) {
                return Err(format!("{} has not acknowledged the form: no share is issued", person.name));
            }
            custodians.push(person.public.sealing);
        }
        let Pending { ceremony, rehearsal, threshold, .. } = *pending;
        Ok(ProviderSettings::NewShares(NewSharesSettings { ceremony, threshold, rehearsal, custodians }))
    }

    /// The ceremony that has begun, as custodians are told of it.
    pub(super) fn pending_facts(&self) -> Value {
        let Some(pending) = &self.custody.pending else { return Value::Null };
        let name = |id: &PersonId| {
            self.people.find(&id.to_string()).map_or_else(|_| id.to_string(), |person| person.name.clone())
        };
        json!({
            "ceremony": HEXLOWER.encode(&pending.ceremony),
            "threshold": pending.threshold,
            "custodians": pending.custodians.iter().map(name).collect::<Vec<_>>(),
        })
    }

    async fn issue(&mut self, actor: &str) -> Result<String, String> {
        let wrap = self.new_shares()?;
        let rehearsal = self.custody.pending.as_ref().is_some_and(|pending| pending.rehearsal);
        if rehearsal && self.custody.gathering.is_some() {
            return Err(
                "shares are being given, which a rehearsal would forget: wait for that, or end it with `cardvault keys unseal --cancel`"
                    .to_owned(),
            );
        }
        let record = self.key_store.kek().cloned();
        let order = match record.filter(|_| !rehearsal) {
            None if rehearsal => UnsealOrder { from: KekSource::Make, wrap: Some((wrap, self.binding(0))) },
            None if self.key_store.keys().is_empty() => {
                let binding = self.binding(self.key_store.next_key_id());
                UnsealOrder { from: KekSource::Make, wrap: Some((wrap, binding)) }
            }
            None => return Err("the key store is of a version before: start the vault once first".to_owned()),
            Some(record) if record.provider.as_deref() == Some("shares") => {
                return self.gather(Purpose::Replace).await;
            }
            Some(record) => {
                let binding = self.binding(record.id);
                UnsealOrder { from: self.source(&record)?, wrap: Some((wrap, binding)) }
            }
        };
        let obtained = self.unseal(order).await?;
        self.unsealer = None;
        self.keep_issued(obtained, rehearsal, actor)
    }

    /// Keeps the shares that were made, each for its custodian to collect.
    pub(super) fn keep_issued(
        &mut self,
        obtained: Obtained,
        rehearsal: bool,
        actor: &str,
    ) -> Result<String, String> {
        let pending = self.custody.pending.take().ok_or("no ceremony has begun")?;
        let issued = obtained.issued.ok_or("no shares were made")?;
        let kek = self.key_store.kek().map_or(self.key_store.next_key_id(), |kek| kek.id);
        let mut custodians = Vec::new();
        let mut events = Vec::new();
        let ceremony = HEXLOWER.encode(&pending.ceremony);
        for (id, share) in pending.custodians.iter().zip(issued.shares) {
            let person = self.people.find(&id.to_string()).map_err(|error| error.to_string())?;
            let acknowledged = pending.acknowledged.get(id).cloned();
            let mut event = told("share.issue", actor.to_owned(), ceremony.clone())?;
            event.fields = vec![id.to_string(), format!("share {}", share.place)];
            event.note = Some(format!("kcv {}", share.check_value));
            events.push(event);
            custodians.push(Custodian {
                place: share.place,
                person: *id,
                name: person.name.clone(),
                share_check: share.check_value,
                acknowledged: acknowledged.ok_or("not all custodians have acknowledged the form")?,
                sealed: BASE64.encode(&share.sealed),
                confirmed_at: None,
            });
        }
        let custody = Custody {
            ceremony,
            state: CustodyState::Issued,
            threshold: pending.threshold,
            form_sha256: digest_of(FORM),
            secret_check: issued.secret_check,
            kek: (kek, obtained.check_value),
            wrapped: BASE64.encode(&obtained.wrapped),
            custodians,
            issued_at: SystemClock.now(),
        };
        let said = format!(
            "{} shares are made, {} of them give the secret (key check value {}); each custodian takes theirs with \
             `cardvault keys ceremony collect`",
            custody.custodians.len(),
            custody.threshold,
            custody.secret_check
        );
        if rehearsal {
            self.custody.rehearsal = Some(custody);
        } else {
            self.key_store.issue_custody(custody, events).map_err(|error| error.to_string())?;
        }
        Ok(said)
    }

    /// The ceremony of this id whose shares are being collected.
    fn collecting(&self, ceremony: Option<&Value>) -> Result<(&Custody, bool), String> {
        let rehearsal = self.custody.rehearsal.as_ref().map(|custody| (custody, true));
        let issued = self.key_store.custody(CustodyState::Issued).map(|custody| (custody, false));
        let mut all = rehearsal.into_iter().chain(issued);
        let found =
            all.find(|(custody, _)| ceremony.and_then(Value::as_str) == Some(custody.ceremony.as_str()));
        found.ok_or_else(|| "no shares of this ceremony wait to be collected".to_owned())
    }

    /// Gives a custodian their share, sealed to them.
    fn collect(&self, request: &SignedRequest) -> Result<String, String> {
        let (person, parameters) = self.check_signed(request, COLLECT)?;
        let (custody, _) = self.collecting(parameters.get("ceremony"))?;
        let custodian = custody.custodians.iter().find(|custodian| custodian.person == person);
        let custodian = custodian.ok_or("you are no custodian of this ceremony")?;
        if custodian.confirmed_at.is_some() {
            return Err("you have confirmed that you have your share: it is nowhere else any more".to_owned());
        }
        Ok(json!({"place": custodian.place, "sealed": custodian.sealed}).to_string())
    }

    /// A custodian has their share: the last one puts all of them in force.
    fn confirm(&mut self, request: &SignedRequest) -> Result<String, String> {
        let (person, parameters) = self.check_signed(request, CONFIRM)?;
        let (custody, rehearsal) = self.collecting(parameters.get("ceremony"))?;
        let custodian = custody.custodians.iter().find(|custodian| custodian.person == person);
        let custodian = custodian.ok_or("you are no custodian of this ceremony")?;
        if parameters.get("share_check").and_then(Value::as_str) != Some(custodian.share_check.as_str()) {
            return Err(format!("share {}: it is not the one that was issued", custodian.place));
        }
        let (ceremony, secret_check) = (custody.ceremony.clone(), custody.secret_check.clone());
        let of = custody.custodians.len();
        let mut confirmed = told("share.confirm", person.to_string(), ceremony.clone())?;
        confirmed.fields = vec![format!("share {}", custodian.place)];
        let mut ended = told("ceremony.end", person.to_string(), ceremony)?;
        ended.note = Some(format!("kcv {secret_check}"));
        ended.fields = custody.custodians.iter().map(|custodian| custodian.person.to_string()).collect();
        let now = SystemClock.now();
        if rehearsal {
            let custody = self.custody.rehearsal.as_mut().ok_or("there is no rehearsal")?;
            custody.confirm(person, now);
            return Ok(if custody.is_confirmed() {
                "all shares of the rehearsal are confirmed: try them with `cardvault keys unseal --rehearsal`"
            } else {
                "the share of the rehearsal is confirmed"
            }
            .to_owned());
        }
        let told = (confirmed, ended);
        let actor = person.to_string();
        let is_active =
            self.key_store.confirm_share(person, now, &actor, told).map_err(|error| error.to_string())?;
        Ok(if is_active {
            format!(
                "all {of} shares are confirmed: the KEK is wrapped under their secret now, and shares of before open nothing that is \
                 in use; set keys.provider = \"shares\", and destroy a file of root keys"
            )
        } else {
            "the share is confirmed; the vault goes by it once all custodians have theirs".to_owned()
        })
    }

    /// What a terminal has to know, and what `keys ceremony status` shows. Nothing of it is secret.
    fn custody_facts(&self) -> Value {
        let of = |custody: &Custody| {
            let custodians: Vec<_> = custody.custodians.iter().map(|custodian| {
                json!({"place": custodian.place, "person": custodian.person.to_string(), "name": custodian.name,
                       "kcv": custodian.share_check, "confirmed": custodian.confirmed_at.is_some()})
            }).collect();
            json!({"ceremony": custody.ceremony, "threshold": custody.threshold, "kcv": custody.secret_check,
                   "state": custody.state, "form_sha256": custody.form_sha256, "custodians": custodians})
        };
        let pending = self.custody.pending.as_ref().map(|pending| {
            let acknowledged: Vec<_> = pending.acknowledged.keys().map(ToString::to_string).collect();
            let custodians: Vec<_> = pending.custodians.iter().map(ToString::to_string).collect();
            json!({"ceremony": HEXLOWER.encode(&pending.ceremony), "threshold": pending.threshold,
                   "rehearsal": pending.rehearsal, "custodians": custodians, "acknowledged": acknowledged})
        });
        json!({
            "environment": HEXLOWER.encode(&self.key_store.environment()),
            "form_sha256": digest_of(FORM),
            "pending": pending,
            "rehearsal": self.custody.rehearsal.as_ref().map(of),
            "issued": self.key_store.custody(CustodyState::Issued).map(of),
            "active": self.key_store.custody(CustodyState::Active).map(of),
            "gathering": self.gathering_facts(),
        })
    }
}
