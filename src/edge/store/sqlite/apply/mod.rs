//! One change, inside the writer's transaction and a savepoint of its own: idempotency first, then rows, then the key.

use rusqlite::{Connection, ErrorCode, OptionalExtension};

use super::codec::{self, AnswerPlace, MacPlace, ReadError, StoredCard, StoredKey};
use super::index::IndexWriter;
use super::keys;
use super::records::Watched;
use crate::card::id::{FingerprintId, Token};
use crate::card::tenant::TenantId;
use crate::clock::Time;
use crate::edge::audit::event::EventDraft;
use crate::edge::store::webhooks::Notice;
use crate::edge::store::{
    AgreementRow, Change, CommitError, Idempotency, Installation, PrincipalRow, RowChange, StoredAnswer,
    StoredIdempotency, TenantRow,
};

mod cards;
mod charges;
mod customers;
mod declines;
mod erasures;
mod forwards;
mod holds;
mod invoice_runs;
mod outlived;
mod records;
mod retention;
mod webhooks;

pub(super) use charges::{is_over, load_charge, needs_card_yet, read_charge, status_of_word, status_word};
pub(super) use customers::Salt;
pub(super) use declines::declines_of;
pub(super) use erasures::event_of;
pub(super) use forwards::{load_forward, load_open_forwards};
pub(super) use holds::legal_holds;
pub(super) use webhooks::Hooks;

/// What a change needs of the writer.
pub(super) struct Applying<'a> {
    pub(super) conn: &'a Connection,
    pub(super) index: &'a mut IndexWriter,
    pub(super) watched: &'a Watched,
    pub(super) hooks: &'a mut Hooks,
    pub(super) now: Time,
    /// Cards erased so far in this transaction.
    pub(super) erased: u64,
    /// A card that this change was found to charge: it has its sealed fields.
    pub(super) charged: Option<Token>,
    /// What the store itself says of this change in the log, before the events that came with it.
    pub(super) said: Vec<EventDraft>,
    /// That of the customer whose card this change inserted or updated.
    pub(super) salt: Option<Salt>,
}

/// Why a change did not go in.
#[derive(Debug)]
pub(super) enum Refusal {
    /// This change only.
    Change(CommitError),
    /// The database failed: the whole batch.
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::ConstraintViolation) => Self::Change(CommitError::Conflict),
            Some(ErrorCode::TooBig) => Self::Change(CommitError::Unavailable("too_big")),
            Some(_) | None => Self::Database(error),
        }
    }
}

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Database(error) => error.into(),
            ReadError::Corrupt(_) | ReadError::NoSuchTree => {
                Self::Change(CommitError::Unavailable("corrupt"))
            }
        }
    }
}

impl From<CommitError> for Refusal {
    fn from(error: CommitError) -> Self {
        Self::Change(error)
    }
}

impl Applying<'_> {
    /// Everything of a change but its events. Gives the fingerprint id of the card that it inserted or updated.
    pub(super) fn apply(&mut self, change: &Change) -> Result<Option<FingerprintId>, Refusal> {
        let freezes = match &change.idempotency {
            Some(claim) => self.check_key(claim)?,
            None => None,
        };
        let mut fingerprint = None;
        let mut mac_with_card = false;
        for row in &change.rows {
            match row {
                RowChange::InsertCard { card, fingerprint: hash, on_duplicate } => {
                    let mac = change.idempotency.as_ref().filter(|claim| made_by(claim, card.token));
                    mac_with_card |= mac.is_some();
                    let mac = mac.map(|claim| &claim.body_mac);
                    fingerprint = Some(self.insert_card(card, hash, *on_duplicate, mac)?);
                }
                RowChange::UpdateCard { card, fingerprint: hash } => {
                    fingerprint = Some(self.update_card(card, hash.as_ref())?);
                }
                RowChange::SetCardStatus { tenant, token, status } => {
                    self.set_card_status(*tenant, *token, *status)?;
                }
                RowChange::SetLegalHold { .. } => self.set_legal_hold(row)?,
                RowChange::EraseCard { tenant, token, held_seen } => {
                    self.erase_card(*tenant, *token, *held_seen)?;
                }
                RowChange::EraseIdle { card, before } => self.erase_idle(card, *before)?,
                RowChange::Forget { record, before } => self.forget(*record, *before)?,
                RowChange::PutCharge(charge) => self.put_charge(charge)?,
                RowChange::PutForward(row) => self.put_forward(row)?,
                RowChange::PutPrincipal(row) => self.put_principal(row)?,
                RowChange::PutTenant(row) => self.put_tenant(row)?,
                RowChange::PutAgreement(row) => self.put_agreement(row)?,
                RowChange::SeenAgreements { tenant, token, number, agreements } => {
                    self.check_seen((*tenant, *token), *number, *agreements)?;
                }
                RowChange::CountDecline(row) => self.count_decline(row)?,
                RowChange::PruneDeclines(before) => self.prune_declines(*before)?,
                RowChange::PutRun(run) => self.put_run(run)?,
                RowChange::AddRunLines { run, lines } => self.add_run_lines(run, lines)?,
                RowChange::RefuseRunLine { of, tenant, code } => self.refuse_run_line(*of, *tenant, code)?,
                RowChange::ReleaseRunLines { run, from } => self.release_run_lines(run, *from)?,
                RowChange::Reseal(records) => self.reseal(records)?,
                RowChange::Webhook(change) => self.apply_webhook(change)?,
                RowChange::MarkKey(mark) => self.mark_key(mark)?,
                RowChange::KeyGeneration(generation) => self.put_key_generation(*generation)?,
                RowChange::BindInstallation(row) => self.bind_installation(row)?,
            }
        }
        if let Some(claim) = &change.idempotency {
            self.claim_key(claim, freezes, mac_with_card)?;
        }
        Ok(fingerprint)
    }

    /// Fails if the key is taken; gives the place of the body MAC if this claim freezes a reserved answer.
    fn check_key(&self, claim: &Idempotency) -> Result<Option<MacPlace>, Refusal> {
        let key = keys::idempotency(claim.tenant, claim.route, &claim.key);
        let Some(bytes) = self.index.get(self.conn, &key)? else { return Ok(None) };
        let stored: StoredKey = codec::decode(&bytes)?;
        let place = stored.mac.clone();
        let taken = read_key(self.conn, stored)?;
        let reserved = matches!(taken.answer, StoredAnswer::Reserved { .. });
        let frozen = matches!(claim.answer, StoredAnswer::Frozen { .. });
        // A MAC that is gone was erased with its card while the outcome was on its way: the outcome still counts.
        let same_body = taken.body_mac.is_none_or(|mac| mac == claim.body_mac);
        if reserved && frozen && same_body {
            return Ok(Some(place));
        }
        Err(CommitError::KeyTaken(Box::new(taken)).into())
    }

    fn claim_key(
        &mut self,
        claim: &Idempotency,
        freezes: Option<MacPlace>,
        mac_with_card: bool,
    ) -> Result<(), Refusal> {
        let mac = match (freezes, claim.subject_token) {
            (Some(place), _) => place,
            (None, Some(_)) if mac_with_card => MacPlace::WithCard,
            (None, Some(token)) => self.keep_body_mac(token, &claim.body_mac)?,
            (None, None) => MacPlace::Here(claim.body_mac),
        };
        let answer = match &claim.answer {
            StoredAnswer::Card { token, version, status } => {
                AnswerPlace::Card { token: *token, version: *version, status: *status }
            }
            StoredAnswer::Reserved { subject } => AnswerPlace::Reserved { subject: subject.clone() },
            StoredAnswer::Frozen { .. } | StoredAnswer::Forgotten => {
                self.conn
                    .prepare_cached(include_str!("../sql/answer_insert.sql"))?
                    .execute((codec::encode_answer(&claim.answer),))?;
                AnswerPlace::Row(self.conn.last_insert_rowid())
            }
        };
        let key = keys::idempotency(claim.tenant, claim.route, &claim.key);
        self.index.put(&key, &codec::encode(&StoredKey { mac, answer }));
        Ok(())
    }

    fn keep_body_mac(&mut self, token: Token, mac: &[u8; 32]) -> Result<MacPlace, Refusal> {
        let gone = self.charged != Some(token)
            && load_card(self.conn, token)?.is_some_and(|card| card.row.sealed.is_none());
        if gone {
            return Ok(MacPlace::Gone);
        }
        self.conn.prepare_cached(include_str!("../sql/body_mac_insert.sql"))?.execute((mac,))?;
        let id = self.conn.last_insert_rowid();
        self.index.put(&keys::body_mac(token, id), &[]);
        Ok(MacPlace::Row(id))
    }

    fn put_principal(&self, row: &PrincipalRow) -> Result<(), Refusal> {
        self.conn
            .prepare_cached(include_str!("../sql/principal_put.sql"))?
            .execute((row.id.bytes(), to_json(row)?))?;
        Ok(())
    }

    fn put_tenant(&self, row: &TenantRow) -> Result<(), Refusal> {
        self.conn.prepare_cached(include_str!("../sql/tenant_put.sql"))?.execute((
            row.id.0,
            &row.name,
            to_json(row)?,
        ))?;
        Ok(())
    }

    fn put_agreement(&mut self, row: &AgreementRow) -> Result<(), Refusal> {
        self.card_of(row.tenant, row.token)?;
        let place = (row.token.bytes(), row.id.bytes());
        let mut get = self.conn.prepare_cached(include_str!("../sql/agreement_get.sql"))?;
        let doc: Option<String> = get.query_row(place, |row| row.get(0)).optional()?;
        let before = doc.map(|doc| serde_json::from_str::<AgreementRow>(&doc)).transpose();
        let before = before.map_err(|_| ReadError::Corrupt("agreement"))?;
        drop(get);
        if row.revision != before.as_ref().map_or(0, |before| before.revision).saturating_add(1) {
            return Err(CommitError::Conflict.into());
        }
        if self.is_heard(row.tenant)
            && let Some(notice) = Notice::of_agreement(before.as_ref(), row)
        {
            self.tell(row.tenant, &notice)?;
        }
        self.conn.prepare_cached(include_str!("../sql/agreement_put.sql"))?.execute((
            row.token.bytes(),
            row.id.bytes(),
            to_json(row)?,
        ))?;
        Ok(())
    }

    fn check_seen(
        &self,
        (tenant, token): (TenantId, Token),
        number: u32,
        agreements: usize,
    ) -> Result<(), Refusal> {
        let sealed = self.card_of(tenant, token)?.row.sealed.ok_or(CommitError::NotFound)?;
        let mut count = self.conn.prepare_cached(include_str!("../sql/agreements_count.sql"))?;
        let there: i64 = count.query_row((token.bytes(),), |row| row.get(0))?;
        let as_seen = sealed.pan.version == number && usize::try_from(there) == Ok(agreements);
        if as_seen { Ok(()) } else { Err(CommitError::Conflict.into()) }
    }

    fn bind_installation(&self, row: &Installation) -> Result<(), Refusal> {
        let read = include_str!("../sql/installation_get.sql");
        let bound: Option<String> = self.conn.query_row(read, [], |row| row.get(0)).optional()?;
        match bound.map(|doc| serde_json::from_str::<Installation>(&doc)) {
            None => {
                let put = include_str!("../sql/installation_put.sql");
                self.conn.prepare_cached(put)?.execute((to_json(row)?,))?;
                Ok(())
            }
            Some(Ok(bound)) if bound == *row => Ok(()),
            Some(_) => Err(CommitError::Conflict.into()),
        }
    }

    fn put_key_generation(&self, generation: u64) -> Result<(), Refusal> {
        let generation = i64::try_from(generation).unwrap_or(i64::MAX);
        let mut put = self.conn.prepare_cached(include_str!("../sql/key_generation_put.sql"))?;
        if put.execute((generation,))? == 1 { Ok(()) } else { Err(CommitError::Conflict.into()) }
    }

    /// A card of this tenant, whatever its status.
    fn card_of(&self, tenant: TenantId, token: Token) -> Result<StoredCard, Refusal> {
        let card = load_card(self.conn, token)?.filter(|card| card.row.tenant == tenant);
        card.ok_or_else(|| CommitError::NotFound.into())
    }
}

/// Whether the claim is of the request that made this card, so that its MAC can lie beside it.
fn made_by(claim: &Idempotency, inserted: Token) -> bool {
    let answered = match &claim.answer {
        StoredAnswer::Card { token, .. } => *token == inserted,
        StoredAnswer::Reserved { .. } | StoredAnswer::Frozen { .. } | StoredAnswer::Forgotten => false,
    };
    answered && claim.subject_token == Some(inserted)
}

/// Reads a card by its token.
pub(super) fn load_card(conn: &Connection, token: Token) -> Result<Option<StoredCard>, ReadError> {
    let mut statement = conn.prepare_cached(include_str!("../sql/card_get.sql"))?;
    let mut rows = statement.query((token.bytes(),))?;
    rows.next()?.map(StoredCard::read).transpose()
}

/// An idempotency record from its entry.
pub(super) fn read_key(conn: &Connection, stored: StoredKey) -> Result<StoredIdempotency, ReadError> {
    let answer = match stored.answer {
        AnswerPlace::Card { token, version, status } => StoredAnswer::Card { token, version, status },
        AnswerPlace::Reserved { subject } => StoredAnswer::Reserved { subject },
        AnswerPlace::Row(id) => {
            let bytes: Option<Vec<u8>> = conn
                .prepare_cached(include_str!("../sql/answer_get.sql"))?
                .query_row((id,), |row| row.get(0))
                .optional()?;
            codec::decode(&bytes.ok_or(ReadError::Corrupt("answer"))?)?
        }
    };
    let body_mac = match (stored.mac, &answer) {
        (MacPlace::Here(mac), _) => Some(mac),
        (MacPlace::WithCard, StoredAnswer::Card { token, .. }) => {
            let mut statement = conn.prepare_cached(include_str!("../sql/card_body_mac.sql"))?;
            statement.query_row((token.bytes(),), |row| row.get(0)).optional()?.flatten()
        }
        (MacPlace::Row(id), _) => conn
            .prepare_cached(include_str!("../sql/body_mac_get.sql"))?
            .query_row((id,), |row| row.get(0))
            .optional()?,
        (MacPlace::WithCard | MacPlace::Gone, _) => None,
    };
    Ok(StoredIdempotency { body_mac: body_mac.filter(|mac| *mac != [0; 32]), answer })
}

/// The JSON of a row of ours.
fn to_json<T: serde::Serialize>(row: &T) -> Result<String, Refusal> {
    serde_json::to_string(row).map_err(|_| Refusal::Change(CommitError::Unavailable("encoding")))
}
