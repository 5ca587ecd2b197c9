//! The registered persons, in a file of their own beside the key store: whose signatures count, and to whom shares are sealed.
//!
//! A person is one human. A key that was ever registered is never registered again, and neither is a name or a uid, so that nobody
//! becomes a second person by the same means; who lost a key gets another one as the same person ([`People::rekey`]). What the log
//! has to be told is written with the change and stays until the log has it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::durable;
use super::key_store::custody::{Custodian, CustodyState};
use super::two_person::{counting, person_id};
use super::vault::Vault;
use crate::card::id::{ApprovalId, EventId, PersonId};
use crate::clock::{Clock, SystemClock, Time};
use crate::person::key::PersonPublic;
use crate::person::request::{Signed, Step};
use crate::person::scope::PersonScope;
use crate::random::NoRandomness;
use crate::wire::control::{AdminAnswer, AdminCommand, Recorded};

const FORMAT: u32 = 1;
const NAME_BYTES_MAX: usize = 64;
const PEOPLE_MAX: usize = 1_000;

/// Why a person was not registered, changed or believed; each sentence says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeopleError {
    /// The file cannot be read or written.
    #[error("the register of persons {0} cannot be {1}: {2}")]
    Io(PathBuf, &'static str, std::io::ErrorKind),
    /// It is not a register of this version and installation.
    #[error(
        "the register of persons {0} is not one of this installation and version; restore it from its backup"
    )]
    Malformed(PathBuf),
    /// The name is none.
    #[error("use 1 to 64 letters, digits, '-', '_', '.' or '@' for a person's name")]
    Name,
    /// The name was given before.
    #[error("there is, or was, a person of this name; a name is given once")]
    NameTaken,
    /// The key was registered before, to whomever.
    #[error("this key is, or was, a registered person's; a key is registered once, so make another")]
    KeyTaken,
    /// The uid is another person's.
    #[error("this uid is, or was, another person's; each person has a uid of their own")]
    UidTaken,
    /// A scope is none.
    #[error("unknown scope; the scopes of persons are: {}", PersonScope::names().join(" "))]
    Scope,
    /// There is no such person.
    #[error("there is no such person; see `cardvault person list`")]
    Unknown,
    /// The person is disabled.
    #[error("this person is disabled")]
    Disabled,
    /// The signature is not of a registered person's key over this.
    #[error(
        "the signature is not a registered person's over this request; sign it once more with the right key"
    )]
    Signature,
    /// There are too many.
    #[error("there are {PEOPLE_MAX} persons; more are not kept")]
    TooMany,
    /// No randomness.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
}

/// A registered person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Person {
    /// Their id.
    pub id: PersonId,
    /// Their name, for people.
    pub name: String,
    /// The keys that count.
    pub public: PersonPublic,
    /// Keys that counted before and never will again.
    pub former: Vec<PersonPublic>,
    /// Their uid on the vault's machine.
    pub uid: Option<u32>,
    /// What they may ask for.
    pub scopes: Vec<String>,
    /// When they were registered.
    pub registered_at: Time,
    /// Whether two persons signed the registration.
    pub is_vouched: bool,
    /// Since when they may do nothing.
    pub disabled_at: Option<Time>,
}

impl Person {
    /// Whether they may ask for what has this scope.
    pub fn may(&self, scope: PersonScope) -> bool {
        self.disabled_at.is_none() && self.scopes.iter().any(|name| name == scope.name())
    }
}

/// Somebody to register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// Their name.
    pub name: String,
    /// The public half of their key.
    pub public: PersonPublic,
    /// Their uid on the vault's machine.
    pub uid: Option<u32>,
    /// What they may ask for.
    pub scopes: Vec<String>,
}

/// What an administrator may ask about persons.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PersonRequest {
    /// Register somebody.
    Add(Registration),
    /// Register the first two, each of whom signs for both.
    Found(Vec<Registration>),
    /// All of them.
    List,
    /// Somebody may do nothing any more.
    Disable(String),
    /// Somebody has another key: the one before was lost, or others may know it.
    Rekey {
        /// Name or id.
        person: String,
        /// The public half of the key that counts from now on.
        public: PersonPublic,
    },
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    /// The installation's environment id: another's register is not taken.
    environment: String,
    people: Vec<Person>,
    /// What became of them, until the log has it.
    untold: Vec<Recorded>,
}

/// The register, as read.
pub struct People {
    path: PathBuf,
    file: File,
}

impl People {
    /// Reads the register beside this key store; where there is none, nobody is registered.
    pub fn open(key_store: &Path, environment: [u8; 16]) -> Result<Self, PeopleError> {
        let path = key_store.with_extension("people.json");
        let environment = data_encoding::HEXLOWER.encode(&environment);
        let file = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|_| PeopleError::Malformed(path.clone()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => File {
                format: FORMAT,
                environment: environment.clone(),
                people: Vec::new(),
                untold: Vec::new(),
            },
            Err(error) => return Err(PeopleError::Io(path, "read", error.kind())),
        };
        if file.format != FORMAT || file.environment != environment {
            return Err(PeopleError::Malformed(path));
        }
        Ok(Self { path, file })
    }

    /// All of them, in the order of registration.
    pub fn all(&self) -> &[Person] {
        &self.file.people
    }

    /// A person by name or id.
    pub fn find(&self, name_or_id: &str) -> Result<&Person, PeopleError> {
        let id = PersonId::parse(name_or_id);
        let found = |person: &&Person| Some(person.id) == id || person.name == name_or_id;
        self.file.people.iter().find(found).ok_or(PeopleError::Unknown)
    }

    /// Who signed this step of this text: a registered person who is not disabled, with the key that counts.
    pub fn signer(&self, signed: &Signed, step: Step, text: &str) -> Result<&Person, PeopleError> {
        let theirs = |person: &&Person| person.public == signed.by;
        let person = self.file.people.iter().find(theirs).ok_or(PeopleError::Signature)?;
        if !signed.is_good(step, text) {
            return Err(PeopleError::Signature);
        }
        if person.disabled_at.is_some() { Err(PeopleError::Disabled) } else { Ok(person) }
    }

    /// Whether somebody could be registered so.
    pub fn check(&self, new: &Registration) -> Result<(), PeopleError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'@');
        if !(1..=NAME_BYTES_MAX).contains(&new.name.len()) || !new.name.bytes().all(plain) {
            return Err(PeopleError::Name);
        }
        if new.scopes.iter().any(|name| PersonScope::from_name(name).is_none()) {
            return Err(PeopleError::Scope);
        }
        if self.file.people.iter().any(|person| person.name == new.name) {
            return Err(PeopleError::NameTaken);
        }
        if new.uid.is_some() && self.file.people.iter().any(|person| person.uid == new.uid) {
            return Err(PeopleError::UidTaken);
        }
        if self.file.people.len() >= PEOPLE_MAX {
            return Err(PeopleError::TooMany);
        }
        self.check_key(&new.public)
    }

    /// Neither half of a key comes back, whosever it was.
    fn check_key(&self, public: &PersonPublic) -> Result<(), PeopleError> {
        let keys = self.file.people.iter().flat_map(|person| person.former.iter().chain([&person.public]));
        let mut used = keys.flat_map(|key| [key.signing, key.sealing]);
        if used.any(|half| half == public.signing || half == public.sealing) {
            Err(PeopleError::KeyTaken)
        } else {
            Ok(())
        }
    }

    /// Registers somebody under this id; durable when it returns. Whoever is there under this id already is who was meant.
    pub fn add(
        &mut self,
        id: PersonId,
        new: Registration,
        is_vouched: bool,
        actor: &str,
        now: Time,
    ) -> Result<(), PeopleError> {
        if self.file.people.iter().any(|person| person.id == id) {
            return Ok(());
        }
        self.check(&new)?;
        let Registration { name, public, uid, scopes } = new;
        let told = recorded("person.create", actor, id, scopes.clone(), now)?;
        let (former, disabled_at) = (Vec::new(), None);
        let person =
            Person { id, name, public, former, uid, scopes, registered_at: now, is_vouched, disabled_at };
        self.change(|file| {
            file.people.push(person);
            file.untold.push(told);
        })
    }

    /// Somebody may do nothing any more; durable when it returns.
    pub fn disable(&mut self, person: &str, actor: &str, now: Time) -> Result<(), PeopleError> {
        let Person { id, disabled_at, .. } = *self.find(person)?;
        if disabled_at.is_some() {
            return Ok(());
        }
        let told = recorded("person.disable", actor, id, Vec::new(), now)?;
        self.change(|file| {
            let theirs = file.people.iter_mut().filter(|person| person.id == id);
            theirs.for_each(|person| person.disabled_at = Some(now));
            file.untold.push(told);
        })
    }

    /// Somebody has another key; durable when it returns.
    pub fn rekey(
        &mut self,
        person: &str,
        (public, by_two): (PersonPublic, bool),
        actor: &str,
        now: Time,
    ) -> Result<(), PeopleError> {
        let Person { id, disabled_at, public: before, .. } = *self.find(person)?;
        if disabled_at.is_some() {
            return Err(PeopleError::Disabled);
        }
        if before == public {
            return Ok(());
        }
        self.check_key(&public)?;
        let told = recorded("person.rekey", actor, id, Vec::new(), now)?;
        self.change(|file| {
            for person in file.people.iter_mut().filter(|person| person.id == id) {
                person.former.push(before);
                person.public = public;
                // Nobody but who gave the key knows whose it is.
                person.is_vouched &= by_two;
            }
            file.untold.push(told);
        })
    }

    /// What the log has not been told.
    pub fn untold(&self) -> &[Recorded] {
        &self.file.untold
    }

    /// The log has these.
    pub fn told(&mut self, events: &[EventId]) -> Result<(), PeopleError> {
        self.change(|file| file.untold.retain(|told| !events.contains(&told.event)))
    }

    /// Makes a change and keeps it on disk: all of it or, whatever fails, nothing of it.
    fn change(&mut self, change: impl FnOnce(&mut File)) -> Result<(), PeopleError> {
        let mut file = self.file.clone();
        change(&mut file);
        durable::write(&self.path, &serde_json::to_vec_pretty(&file).unwrap_or_default())
            .map_err(|error| PeopleError::Io(self.path.clone(), "written", error.kind()))?;
        self.file = file;
        Ok(())
    }

    fn table(&self) -> AdminAnswer {
        let head = ["id", "name", "uid", "registered", "scopes", "state"].map(str::to_owned).to_vec();
        let line = |person: &Person| {
            let state = match (person.disabled_at, person.is_vouched) {
                (Some(_), _) => "disabled",
                (None, true) => "active",
                (None, false) => "active, registered by one",
            };
            vec![
                person.id.to_string(),
                person.name.clone(),
                person.uid.map(|uid| uid.to_string()).unwrap_or_default(),
                person.registered_at.to_string(),
                person.scopes.join(" "),
                state.to_owned(),
            ]
        };
        AdminAnswer::Table(std::iter::once(head).chain(self.file.people.iter().map(line)).collect())
    }
}

fn recorded(
    action: &str,
    actor: &str,
    person: PersonId,
    fields: Vec<String>,
    now: Time,
) -> Result<Recorded, NoRandomness> {
    Ok(Recorded {
        event: EventId::make(now)?,
        action: action.to_owned(),
        actor: Some(actor.to_owned()),
        target: ("person".to_owned(), person.to_string()),
        failed: None,
        fields,
        note: None,
    })
}

impl Vault {
    /// Does what is asked about persons, and has the log say so.
    pub(super) async fn answer_person(
        &mut self,
        request: &PersonRequest,
        actor: &str,
        id: Option<ApprovalId>,
    ) -> Result<AdminAnswer, String> {
        let now = SystemClock.now();
        let two_person = self.rules().two_person;
        let done = match request {
            PersonRequest::List => return Ok(self.people.table()),
            PersonRequest::Add(new) => {
                let person = match id {
                    Some(id) => person_id(id, 0),
                    None => PersonId::make(now).map_err(|error| error.to_string())?,
                };
                let added = self.people.add(person, new.clone(), id.is_some() && two_person, actor, now);
                added.map(|()| person.to_string())
            }
            PersonRequest::Found(both) => {
                let id = id.ok_or("the first two persons sign for each other: add --as KEYFILE")?;
                let mut all = both.iter().enumerate();
                let added = all.try_for_each(|(at, new)| {
                    self.people.add(person_id(id, at), new.clone(), true, actor, now)
                });
                added.map(|()| "the first two persons are registered".to_owned())
            }
            PersonRequest::Disable(person) => {
                let is_counted = counting(&self.people)
                    .any(|other| other.name == *person || other.id.to_string() == *person);
                if two_person && is_counted && counting(&self.people).count() <= 2 {
                    return Err("two persons have to remain: register another first".to_owned());
                }
                self.check_custodians_remain(person)?;
                self.people.disable(person, actor, now).map(|()| format!("{person} is disabled"))
            }
            PersonRequest::Rekey { person, public } => {
                let by_two = id.is_some() && two_person;
                self.people
                    .rekey(person, (*public, by_two), actor, now)
                    .map(|()| format!("{person} has another key"))
            }
        };
        // What was done is in the register, durably, and so it belongs into the log.
        self.tell_of_people().await?;
        done.map(AdminAnswer::Done).map_err(|error| error.to_string())
    }

    /// Whoever is disabled gives no share any more: enough others have to hold one, or the vault never opens again.
    fn check_custodians_remain(&self, leaving: &str) -> Result<(), String> {
        let Some(custody) = self.key_store.custody(CustodyState::Active) else { return Ok(()) };
        let leaving = self.people.find(leaving).map_err(|error| error.to_string())?.id;
        let can_give = |custodian: &&Custodian| {
            custodian.person != leaving
                && self.people.all().iter().any(|p| p.id == custodian.person && p.disabled_at.is_none())
        };
        let is_custodian = custody.custodians.iter().any(|custodian| custodian.person == leaving);
        if is_custodian && custody.custodians.iter().filter(can_give).count() < custody.threshold.into() {
            return Err(
                "too few custodians would be left to open the vault: hold a ceremony without them first (`cardvault keys ceremony begin`)"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// Has the edge write into the log what it has not been told of persons.
    pub(super) async fn tell_of_people(&mut self) -> Result<(), String> {
        let untold = self.people.untold().to_vec();
        // Without a KEK there is no log: it is told once there is one.
        if untold.is_empty() || self.sealed.is_some() {
            return Ok(());
        }
        let events: Vec<_> = untold.iter().map(|told| told.event).collect();
        self.ask_edge(AdminCommand::Record(untold)).await?;
        self.people.told(&events).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::person::key::PersonKey;

    fn now() -> Time {
        Time::parse("2026-11-22T00:00:00Z").unwrap()
    }

    fn registration(name: &str, key: &PersonKey, uid: Option<u32>) -> Registration {
        let scopes = PersonScope::names();
        Registration { name: name.to_owned(), public: key.public().unwrap(), uid, scopes }
    }

    fn add(people: &mut People, new: Registration) -> Result<PersonId, PeopleError> {
        let id = PersonId::make(now()).unwrap();
        people.add(id, new, true, "uid:0", now()).map(|()| id)
    }

    #[test]
    fn a_person_is_registered_once_even_after_they_are_gone() {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("keystore.json");
        let mut people = People::open(&store, [1; 16]).unwrap();
        let [alice, bob, carol] = [(); 3].map(|()| PersonKey::make().unwrap());
        let id = add(&mut people, registration("alice", &alice, Some(1000))).unwrap();
        let refused = |people: &mut People| {
            let before = people.all().len();
            let half = PersonPublic { signing: carol.public().unwrap().signing, ..alice.public().unwrap() };
            for (new, why) in [
                (registration("alice", &bob, None), PeopleError::NameTaken),
                (registration("bob", &alice, None), PeopleError::KeyTaken),
                (Registration { public: half, ..registration("bob", &bob, None) }, PeopleError::KeyTaken),
                (registration("bob", &bob, Some(1000)), PeopleError::UidTaken),
                (registration("b b", &bob, None), PeopleError::Name),
                (registration("", &bob, None), PeopleError::Name),
                (
                    Registration { scopes: vec!["keys:reveal".into()], ..registration("bob", &bob, None) },
                    PeopleError::Scope,
                ),
            ] {
                assert_eq!(add(people, new), Err(why));
            }
            assert_eq!(people.all().len(), before);
        };
        refused(&mut people);
        people.disable("alice", "uid:0", now()).unwrap();
        refused(&mut people);
        // The same from the file, with what the log is to be told, and not for another installation.
        let mut again = People::open(&store, [1; 16]).unwrap();
        assert_eq!(again.all(), people.all());
        refused(&mut again);
        assert_eq!(again.untold().len(), 2);
        let told: Vec<_> = again.untold().iter().map(|told| told.event).collect();
        again.told(&told).unwrap();
        assert!(People::open(&store, [1; 16]).unwrap().untold().is_empty());
        assert!(matches!(People::open(&store, [2; 16]), Err(PeopleError::Malformed(_))));
        // Said twice, it is done once.
        people.add(id, registration("alice", &alice, None), true, "uid:0", now()).unwrap();
        assert_eq!(people.all().len(), 1);
    }

    #[test]
    fn only_the_key_that_counts_of_a_person_who_is_there_signs() {
        let directory = tempfile::tempdir().unwrap();
        let mut people = People::open(&directory.path().join("keystore.json"), [1; 16]).unwrap();
        let [alice, next, stranger] = [(); 3].map(|()| PersonKey::make().unwrap());
        let id = add(&mut people, registration("alice", &alice, None)).unwrap();
        let sign = |key: &PersonKey| Signed::make(key, Step::Approve, "text").unwrap();
        let signer = |people: &People, key: &PersonKey| {
            people.signer(&sign(key), Step::Approve, "text").map(|person| person.id)
        };
        assert_eq!(signer(&people, &alice), Ok(id));
        assert_eq!(signer(&people, &stranger), Err(PeopleError::Signature));
        let asked = people.signer(&sign(&alice), Step::Ask, "text");
        assert_eq!(asked.unwrap_err(), PeopleError::Signature);
        assert_eq!(people.signer(&sign(&alice), Step::Approve, "tExt").unwrap_err(), PeopleError::Signature);
        people.rekey("alice", (next.public().unwrap(), true), "uid:0", now()).unwrap();
        assert_eq!(signer(&people, &alice), Err(PeopleError::Signature));
        assert_eq!(signer(&people, &next), Ok(id));
        // The key before is nobody's any more, and nobody's again.
        let back = people.rekey("alice", (alice.public().unwrap(), true), "uid:0", now());
        assert_eq!(back, Err(PeopleError::KeyTaken));
        people.disable(&id.to_string(), "uid:0", now()).unwrap();
        assert_eq!(signer(&people, &next), Err(PeopleError::Disabled));
        assert!(people.all().iter().all(|person| !person.may(PersonScope::KeysDestroy)));
    }
}
