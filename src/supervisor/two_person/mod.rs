//! The two-person rule: what one person asks for and signs, another approves and signs, before it is carried out.
//!
//! Both signatures are checked here, against the register of persons. In production it always holds, and nothing that changes
//! something is taken without a signature; in development it holds if the configuration says so.

use super::admin::AdminRequest;
use super::approvals::{Approval, ApprovalError, Said};
use super::people::{People, PeopleError, Person, PersonRequest, Registration};
use super::verbs::{DangerousVerb, scope_of};
use crate::card::id::{ApprovalId, IdBytes, PersonId};
use crate::card::stray::Exemptions;
use crate::clock::Time;
use crate::config::{Config, Environment};
use crate::person::request::{NotCanonical, Request, Signed, Step};

/// So far may the clock of who signs be ahead.
const CLOCK_SECONDS: i64 = 300;

/// Why a request or a decision was not taken; each sentence says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Who signs does not count.
    #[error(transparent)]
    Person(#[from] PeopleError),
    /// The request was not taken.
    #[error(transparent)]
    Approval(#[from] ApprovalError),
    /// The text is none.
    #[error(transparent)]
    NotCanonical(#[from] NotCanonical),
    /// It is for another installation.
    #[error("the request was signed for another installation; sign it for this one")]
    OtherInstallation,
    /// It is over, or its end is too far away.
    #[error(
        "the request is void: it ends in the past, or later than admin.approval_hours allows; sign it once more"
    )]
    End,
    /// What only reads is not signed.
    #[error("what only reads needs no signature: ask without --as")]
    NothingToSign,
    /// The person lacks the scope.
    #[error("this person lacks the scope {0}; see `cardvault person list`")]
    Scope(&'static str),
    /// Who asked cannot approve.
    #[error("who asked for it cannot approve it; another person has to")]
    OwnRequest,
    /// Who asked may not any more.
    #[error(
        "who asked for it is disabled, has another key or lacks the scope by now: it has to be asked for again"
    )]
    AskerGone,
    /// The person was registered by one alone.
    #[error(
        "this person was registered by one alone, which does not count here; two persons register the first two: `cardvault person found`"
    )]
    NotVouched,
    /// There are persons already.
    #[error(
        "the first two persons are there already; one of them asks for more with `cardvault person add`, another approves"
    )]
    Founded,
    /// The first persons are two.
    #[error("two different persons are registered first, and one of the two signs")]
    Founders,
    /// It may hold a card number.
    #[error("something in it looks like a card number, or the reason is none; say it otherwise")]
    Stray,
    /// Production takes nothing unsigned.
    #[error("in production whatever changes something is signed by a registered person: add --as KEYFILE")]
    Unsigned,
    /// A dangerous verb without signature.
    #[error("this needs two persons: ask with --as KEYFILE, and another person approves")]
    TwoPersons,
}

impl Refusal {
    /// Its word in the log.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Person(PeopleError::Signature) => "signature",
            Self::Person(_) => "person",
            Self::Approval(ApprovalError::Used) => "used",
            Self::Approval(_) => "state",
            Self::NotCanonical(_) | Self::NothingToSign => "malformed",
            Self::OtherInstallation => "other_installation",
            Self::End => "void",
            Self::Scope(_) => "scope_missing",
            Self::OwnRequest => "own_request",
            Self::AskerGone => "asker_gone",
            Self::NotVouched => "not_vouched",
            Self::Founded | Self::Founders => "founders",
            Self::Stray => "stray_number",
            Self::Unsigned => "unsigned",
            Self::TwoPersons => "two_persons",
        }
    }
}

/// What holds in this installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The environment id.
    pub environment: [u8; 16],
    /// Whether it is production.
    pub production: bool,
    /// Whether dangerous verbs need two persons.
    pub two_person: bool,
    /// A request is void at most so many seconds after it was signed.
    pub seconds_max: i64,
}

impl Rules {
    /// Those of a configuration.
    pub fn of(config: &Config, environment: [u8; 16]) -> Self {
        Self {
            environment,
            production: config.environment == Environment::Production,
            two_person: config.two_person(),
            seconds_max: config.admin.approval_seconds(),
        }
    }

    /// Whether somebody who only holds the socket may ask for this.
    pub fn check_unsigned(
        &self,
        request: &AdminRequest,
        danger: Option<DangerousVerb>,
    ) -> Result<(), Refusal> {
        // SIGHUP reads the configuration again as well, and neither takes what widens it.
        if scope_of(request).is_none() || matches!(request, AdminRequest::Reload) {
            Ok(())
        } else if self.production {
            Err(Refusal::Unsigned)
        } else if self.two_person && danger.is_some() {
            Err(Refusal::TwoPersons)
        } else {
            Ok(())
        }
    }
}

/// A signed request that was read, and who asked.
#[derive(Clone, Debug)]
pub struct Asking {
    /// As it was signed.
    pub text: String,
    /// What it says.
    pub request: Request,
    /// The verb and its parameters.
    pub asked: AdminRequest,
    /// Who.
    pub said: Said,
}

/// Reads a signed request and checks who asked. Whether it waits for another person is up to what it asks for.
pub fn read(
    people: &People,
    rules: &Rules,
    (text, signed): (&str, &Signed),
    through: &str,
    now: Time,
) -> Result<Asking, Refusal> {
    let request = Request::read(text)?;
    if request.environment != rules.environment {
        return Err(Refusal::OtherInstallation);
    }
    let latest = now.plus_seconds(rules.seconds_max + CLOCK_SECONDS);
    if request.expires_at <= now || request.expires_at > latest {
        return Err(Refusal::End);
    }
    let asked = verb_in(&request)?;
    let person = signer(people, rules, (&request, &asked), signed, (Step::Ask, text))?;
    let said = Said { person, signed: signed.clone(), through: through.to_owned(), at: now };
    Ok(Asking { text: text.to_owned(), request, asked, said })
}

/// Whether a request may not be kept, as what people wrote into it may be a card number.
pub fn holds_card(asked: &AdminRequest, exemptions: &Exemptions) -> bool {
    let AdminRequest::ChargeResolve(order) = asked else { return false };
    let exempt = |id: &str| exemptions.of(&order.tenant).allows("processor_transaction_id", id);
    order.resolution.check(exempt).is_err()
}

/// The verb and its parameters, as the socket knows them.
pub fn verb_in(request: &Request) -> Result<AdminRequest, Refusal> {
    let asked: AdminRequest = serde_json::from_value(request.parameters.clone()).map_err(|_| NotCanonical)?;
    let scope = scope_of(&asked).ok_or(Refusal::NothingToSign)?;
    // What the vault would read over nobody signs.
    let is_whole = serde_json::to_value(&asked).is_ok_and(|value| value == request.parameters);
    if is_whole && request.verb == scope.name() { Ok(asked) } else { Err(NotCanonical.into()) }
}

/// Checks another person's word on a request that waits; gives it as it is kept.
pub fn check_decision(
    people: &People,
    rules: &Rules,
    approval: &Approval,
    (step, signed): (Step, &Signed),
    through: &str,
    now: Time,
) -> Result<Said, Refusal> {
    let request = approval.request()?;
    let asked = verb_in(&request)?;
    let text = approval.text.as_str();
    let person = signer(people, rules, (&request, &asked), signed, (step, text))?;
    if step == Step::Approve {
        if person == approval.asked.person || signed.by == approval.asked.signed.by {
            return Err(Refusal::OwnRequest);
        }
        // The one who asked must still be one who could ask.
        let asker = signer(people, rules, (&request, &asked), &approval.asked.signed, (Step::Ask, text));
        if asker.ok() != Some(approval.asked.person) {
            return Err(Refusal::AskerGone);
        }
    }
    Ok(Said { person, signed: signed.clone(), through: through.to_owned(), at: now })
}

/// What an approval lets be done: only if both signatures are good, as the persons stand now.
pub fn approved(people: &People, rules: &Rules, approval: &Approval) -> Result<AdminRequest, Refusal> {
    let asked = verb_in(&approval.request()?)?;
    // Who has another key by this very request signed it with the one before: it was carried out.
    if let AdminRequest::Person(PersonRequest::Rekey { person, public }) = &asked
        && people.find(person).is_ok_and(|person| person.public == *public)
    {
        return Ok(asked);
    }
    let decided = approval.decided.as_ref().ok_or(Refusal::OwnRequest)?;
    let given = (Step::Approve, &decided.signed);
    let checked = check_decision(people, rules, approval, given, &decided.through, decided.at)?;
    if checked.person == decided.person { Ok(asked) } else { Err(Refusal::OwnRequest) }
}

/// Who signed this, if they may.
fn signer(
    people: &People,
    rules: &Rules,
    (request, asked): (&Request, &AdminRequest),
    signed: &Signed,
    (step, text): (Step, &str),
) -> Result<PersonId, Refusal> {
    if let AdminRequest::Person(PersonRequest::Found(both)) = asked {
        return founder(people, request.id, both, signed, (step, text));
    }
    let scope = scope_of(asked).ok_or(Refusal::NothingToSign)?;
    let person = people.signer(signed, step, text)?;
    if rules.two_person && !person.is_vouched {
        return Err(Refusal::NotVouched);
    }
    if person.may(scope) { Ok(person.id) } else { Err(Refusal::Scope(scope.name())) }
}

/// Which of the first two persons signed: they are not registered yet, and each signs for both.
fn founder(
    people: &People,
    id: ApprovalId,
    both: &[Registration],
    signed: &Signed,
    (step, text): (Step, &str),
) -> Result<PersonId, Refusal> {
    // Said once more after a crash, those whom this very request registered are no others.
    let is_new = |at: usize| people.all().iter().all(|person| person.id != person_id(id, at));
    let is_other = |person: &Person| (0..both.len()).all(|at| person.id != person_id(id, at));
    if people.all().iter().any(|person| person.is_vouched && is_other(person)) {
        return Err(Refusal::Founded);
    }
    let [one, other] = both else { return Err(Refusal::Founders) };
    let shares = one.name == other.name
        || one.public.signing == other.public.signing
        || one.public.sealing == other.public.sealing
        || (one.uid.is_some() && one.uid == other.uid);
    if shares {
        return Err(Refusal::Founders);
    }
    let mut new = both.iter().enumerate().filter(|(at, _)| is_new(*at));
    new.try_for_each(|(_, new)| people.check(new))?;
    let at = both.iter().position(|new| new.public == signed.by).ok_or(Refusal::Founders)?;
    if signed.is_good(step, text) { Ok(person_id(id, at)) } else { Err(PeopleError::Signature.into()) }
}

/// The id of a person who is registered by this request: the same however often it is carried out.
pub fn person_id(approval: ApprovalId, at: usize) -> PersonId {
    let mut bytes = *approval.bytes();
    if let (Some(last), Ok(at)) = (bytes.last_mut(), u8::try_from(at)) {
        *last = last.wrapping_add(at);
    }
    PersonId(IdBytes(bytes))
}

/// Persons whose word counts where two are needed.
pub fn counting(people: &People) -> impl Iterator<Item = &Person> {
    people.all().iter().filter(|person| person.is_vouched && person.disabled_at.is_none())
}

#[cfg(test)]
mod tests;
