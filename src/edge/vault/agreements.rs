//! Stored-credential agreements of a card: made, listed, ended. Network identifiers are kept letter for letter.

use super::{Error, TRIES_MAX, Vault};
use crate::card::id::{AgreementId, Token};
use crate::clock::Time;
use crate::edge::audit::catalogue;
use crate::edge::directory::Caller;
use crate::edge::store::{
    AgreementRow, Change, CommitError, Idempotency, RowChange, StoredAnswer, StoredIdempotency,
};
use crate::wire::keeper::{Digest, Digested};

/// The field version of a number that was never changed.
pub(in crate::edge) const NUMBER_FIRST: u32 = 1;

/// Who consented, when, and to which text.
#[derive(Clone, Debug)]
pub struct Consent {
    /// In the caller's words.
    pub by: String,
    /// When.
    pub at: Time,
    /// SHA-256 (hex) of the text.
    pub text_sha256: Option<String>,
}

/// An agreement to make.
#[derive(Clone, Debug)]
pub struct NewAgreement {
    /// `recurring`, `unscheduled`, `installment`.
    pub kind: String,
    /// The consent.
    pub consent: Consent,
    /// The initial network transaction id, if it was obtained elsewhere.
    pub network_transaction_id: Option<String>,
    /// Mastercard's transaction link id, if it was obtained elsewhere.
    pub transaction_link_id: Option<String>,
}

/// An answer that is kept as it was written, to be given again.
#[derive(Clone, Debug)]
pub struct Replayable {
    /// HTTP status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
    /// Whether it was given before.
    pub replayed: bool,
}

/// Writes an agreement as the API answers it.
type Write<'a> = &'a (dyn Fn(&AgreementRow) -> Vec<u8> + Send + Sync);

impl Vault {
    /// Makes an agreement.
    pub async fn create_agreement(
        &self,
        caller: &Caller,
        token: Token,
        (key, body): (&str, &[u8]),
        new: NewAgreement,
        write: Write<'_>,
    ) -> Result<Replayable, Error> {
        const ROUTE: &str = "POST /v1/tokens/{token}/agreements";
        let digests = self.digest(caller, format!("POST /v1/tokens/{token}/agreements"), key, body).await?;
        for _ in 0..TRIES_MAX {
            let (row, change) = self.making(caller, token, new.clone()).await?;
            let body = write(&row);
            match self.commit_frozen(caller, token, ROUTE, &digests, (201, body), change).await {
                Err(Error::Commit(CommitError::Conflict)) => {}
                settled => return settled,
            }
        }
        Err(CommitError::Conflict.into())
    }

    /// A new agreement and the change that makes it. On a card whose number a caller changed it waits for the customer to pay or verify
    /// under it, as those from before do, unless it brings a network id that none of those had: then the customer did so elsewhere.
    async fn making(
        &self,
        caller: &Caller,
        token: Token,
        new: NewAgreement,
    ) -> Result<(AgreementRow, Change), Error> {
        let card = self.changeable_row(caller.tenant_id(), token).await?;
        let number = card.sealed.as_ref().map_or(0, |sealed| sealed.pan.version);
        let others = self.store.agreements(card.tenant, token).await?;
        let id = &new.network_transaction_id;
        let is_known = id.is_none() || others.iter().any(|other| other.network_transaction_id == *id);
        let waits = number > NUMBER_FIRST && !card.number_by_updater && is_known;
        let now = self.clock.now();
        let row = AgreementRow {
            id: AgreementId::make(now)?,
            tenant: card.tenant,
            token,
            kind: new.kind,
            consent_by: new.consent.by,
            consent_at: new.consent.at,
            consent_text_sha256: new.consent.text_sha256,
            network_transaction_id: new.network_transaction_id,
            transaction_link_id: new.transaction_link_id,
            created_at: now,
            ended_at: waits.then_some(now),
            ended_reason: waits.then(|| AgreementRow::NUMBER_CHANGED.to_owned()),
            revision: 1,
            first_payments: std::collections::BTreeMap::new(),
        };
        let mut event = self.event(caller, catalogue::AGREEMENT_CREATE, token)?;
        event.target.kind = "agreement".to_owned();
        event.target.id = row.id.to_string();
        event.facts.note.clone_from(&row.ended_reason);
        let (tenant, agreements) = (card.tenant, others.len());
        let seen = RowChange::SeenAgreements { tenant, token, number, agreements };
        let rows = vec![seen, RowChange::PutAgreement(Box::new(row.clone()))];
        Ok((row, Change { rows, events: vec![event], idempotency: None }))
    }

    /// The agreements of a card: a look at a record of the card.
    pub async fn agreements(&self, caller: &Caller, token: Token) -> Result<Vec<AgreementRow>, Error> {
        let card = self.live_row(caller.tenant_id(), token).await?;
        let rows = self.store.agreements(card.tenant, token).await?;
        self.log_reads(caller, vec![self.read_event(caller, card.token, card.version)?]).await?;
        Ok(rows)
    }

    /// Ends an agreement; ending one that has ended answers how it stands.
    pub async fn end_agreement(
        &self,
        caller: &Caller,
        (token, agreement): (Token, AgreementId),
        (key, body): (&str, &[u8]),
        write: Write<'_>,
    ) -> Result<Replayable, Error> {
        const ROUTE: &str = "POST /v1/tokens/{token}/agreements/{agreement}/end";
        let route = format!("POST /v1/tokens/{token}/agreements/{agreement}/end");
        let digests = self.digest(caller, route, key, body).await?;
        let card = self.live_row(caller.tenant_id(), token).await?;
        let rows = self.store.agreements(card.tenant, token).await?;
        let mut row = rows.into_iter().find(|row| row.id == agreement).ok_or(Error::AgreementUnknown)?;
        let mut change = Change::default();
        if row.ended_at.is_none() || row.awaits_customer() {
            self.end(caller, &mut row, "requested", &mut change)?;
        }
        self.commit_frozen(caller, token, ROUTE, &digests, (200, write(&row)), change).await
    }

    /// Adds the end of all live agreements of a card to a change; says how many the card has. One that waits for the customer ends anew: a charge of before
    /// does not bring it back.
    pub(super) async fn end_agreements(
        &self,
        caller: &Caller,
        token: Token,
        reason: &'static str,
        change: &mut Change,
    ) -> Result<usize, Error> {
        let rows = self.store.agreements(caller.tenant_id(), token).await?;
        let count = rows.len();
        for mut row in rows {
            if row.ended_at.is_none() || row.awaits_customer() {
                self.end(caller, &mut row, reason, change)?;
            }
        }
        Ok(count)
    }

    fn end(
        &self,
        caller: &Caller,
        row: &mut AgreementRow,
        reason: &'static str,
        change: &mut Change,
    ) -> Result<(), Error> {
        row.ended_at = Some(self.clock.now());
        row.ended_reason = Some(reason.to_owned());
        row.revision = row.revision.saturating_add(1);
        let mut event = self.event(caller, catalogue::AGREEMENT_END, row.token)?;
        event.target.kind = "agreement".to_owned();
        event.target.id = row.id.to_string();
        event.facts.note = Some(reason.to_owned());
        change.events.push(event);
        change.rows.push(RowChange::PutAgreement(Box::new(row.clone())));
        Ok(())
    }

    async fn digest(
        &self,
        caller: &Caller,
        route: String,
        key: &str,
        body: &[u8],
    ) -> Result<Digested, Error> {
        let digest = Digest {
            tenant: caller.tenant_id(),
            route,
            idempotency_key: key.to_owned(),
            body: body.to_vec(),
        };
        Ok(self.keeper.digest(digest).await?)
    }

    /// Commits a change whose answer is frozen; the same request again gets the same bytes.
    async fn commit_frozen(
        &self,
        caller: &Caller,
        token: Token,
        route: &'static str,
        digests: &Digested,
        (status, body): (u16, Vec<u8>),
        mut change: Change,
    ) -> Result<Replayable, Error> {
        change.idempotency = Some(Idempotency {
            tenant: caller.tenant_id(),
            route,
            key: digests.key,
            body_mac: digests.body,
            subject_token: Some(token),
            answer: StoredAnswer::Frozen { status, location: None, body: body.clone() },
        });
        match self.store.commit(change).await {
            Ok(_) => Ok(Replayable { status, body, replayed: false }),
            Err(CommitError::KeyTaken(stored)) => replay_frozen(*stored, digests),
            Err(error) => Err(error.into()),
        }
    }
}

fn replay_frozen(stored: StoredIdempotency, digests: &Digested) -> Result<Replayable, Error> {
    match stored.body_mac {
        None => Err(Error::TokenErased { scrubbed_at: None }),
        Some(mac) if mac != digests.body => Err(Error::KeyReused),
        Some(_) => match stored.answer {
            StoredAnswer::Frozen { status, location: _, body } => {
                Ok(Replayable { status, body, replayed: true })
            }
            StoredAnswer::Forgotten => Err(Error::Forgotten),
            StoredAnswer::Card { .. } | StoredAnswer::Reserved { .. } => Err(Error::KeyReused),
        },
    }
}
