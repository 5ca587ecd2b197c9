//! What persons asked for and others approve: requests with their signatures, in a file beside the key store.
//!
//! `pending` → `approved` → `executed` or `failed`; or `rejected`; or `expired`. Each step is on disk, with what the log is to be told
//! of it, before the next: what was approved when the supervisor died is carried out at the next start, and every verb knows by the
//! request's id, or by how things stand, what it has done already. What has ended is kept for a while, so that people see what came of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::durable;
use super::reach::Reach;
use crate::card::id::{ApprovalId, EventId, PersonId};
use crate::clock::Time;
use crate::person::request::{NotCanonical, Request, Signed, digest_of};
use crate::random::NoRandomness;
use crate::wire::control::{AdminAnswer, Recorded};

const FORMAT: u32 = 1;
/// Requests that wait at once.
const PENDING_MAX: usize = 100;
/// Requests that have ended and are still shown.
const ENDED_MAX: usize = 1_000;
/// Ids of requests that were carried out at once and whose end is still to come.
const USED_MAX: usize = 10_000;
/// How often an approved request is begun before it counts as failed.
const BEGUN_MAX: u8 = 10;

/// Why a request was not taken or decided; each sentence says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApprovalError {
    /// The file cannot be read or written.
    #[error("the file of approvals {0} cannot be {1}: {2}")]
    Io(PathBuf, &'static str, std::io::ErrorKind),
    /// It is not one of this version and installation.
    #[error(
        "the file of approvals {0} is not one of this installation and version; restore it from its backup"
    )]
    Malformed(PathBuf),
    /// There is no such request.
    #[error("there is no such request; see `cardvault approvals list`")]
    Unknown,
    /// This id was used.
    #[error("this request was made before; it is carried out once")]
    Used,
    /// It does not wait any more.
    #[error("this request does not wait any more: it is {0}")]
    NotPending(&'static str),
    /// Too many wait.
    #[error("{PENDING_MAX} requests wait already: approve or reject some")]
    TooMany,
    /// Its text is none.
    #[error(transparent)]
    NotCanonical(#[from] NotCanonical),
    /// No randomness.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
}

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It waits for another person.
    Pending,
    /// Another person approved it; it is about to be carried out.
    Approved,
    /// Another person, or who asked, said no.
    Rejected,
    /// Nobody decided in time.
    Expired,
    /// It was carried out.
    Executed,
    /// It was approved and could not be carried out.
    Failed,
}

impl State {
    /// Its word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Executed => "executed",
            Self::Failed => "failed",
        }
    }

    const fn has_ended(self) -> bool {
        match self {
            Self::Pending | Self::Approved => false,
            Self::Rejected | Self::Expired | Self::Executed | Self::Failed => true,
        }
    }
}

/// A person's word: signed, and through which local user it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Said {
    /// Whose.
    pub person: PersonId,
    /// The signature.
    pub signed: Signed,
    /// Who held the socket: `uid:0`.
    pub through: String,
    /// When.
    pub at: Time,
}

/// A request, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// Its id.
    pub id: ApprovalId,
    /// The canonical text that is signed.
    pub text: String,
    /// Who asked.
    pub asked: Said,
    /// Who decided.
    pub decided: Option<Said>,
    /// Where it stands.
    pub state: State,
    /// What came of it; never a secret.
    pub result: Option<String>,
}

impl Approval {
    /// What is asked for.
    pub fn request(&self) -> Result<Request, ApprovalError> {
        Ok(Request::read(&self.text)?)
    }
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    environment: String,
    approvals: Vec<Approval>,
    /// Requests that needed one person and were carried out at once, until they are void.
    used: Vec<(ApprovalId, Time)>,
    /// The configuration that two persons approved last.
    reach: Option<Reach>,
    untold: Vec<Recorded>,
}

/// The requests, as read.
pub struct Approvals {
    path: PathBuf,
    file: File,
    /// How often each approved one was begun, and it is not known what came of it.
    begun: BTreeMap<ApprovalId, u8>,
}

impl Approvals {
    /// Reads the file beside this key store; where there is none, nothing was asked for.
    pub fn open(key_store: &Path, environment: [u8; 16]) -> Result<Self, ApprovalError> {
        let path = key_store.with_extension("approvals.json");
        let environment = data_encoding::HEXLOWER.encode(&environment);
        let file = match std::fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|_| ApprovalError::Malformed(path.clone()))?
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => File {
                format: FORMAT,
                environment: environment.clone(),
                approvals: Vec::new(),
                used: Vec::new(),
                reach: None,
                untold: Vec::new(),
            },
            Err(error) => return Err(ApprovalError::Io(path, "read", error.kind())),
        };
        if file.format != FORMAT || file.environment != environment {
            return Err(ApprovalError::Malformed(path));
        }
        Ok(Self { path, file, begun: BTreeMap::new() })
    }

    /// All that are kept, oldest first.
    pub fn all(&self) -> &[Approval] {
        &self.file.approvals
    }

    /// One of them.
    pub fn get(&self, id: ApprovalId) -> Result<&Approval, ApprovalError> {
        self.file.approvals.iter().find(|approval| approval.id == id).ok_or(ApprovalError::Unknown)
    }

    /// The configuration that two persons approved last.
    pub const fn reach(&self) -> Option<&Reach> {
        self.file.reach.as_ref()
    }

    /// This is the configuration that counts as approved; durable when it returns.
    pub fn keep_reach(&mut self, reach: Reach) -> Result<(), ApprovalError> {
        self.change(|file| file.reach = Some(reach))
    }

    /// Whether this id was used before.
    pub fn is_used(&self, id: ApprovalId) -> bool {
        self.file.used.iter().any(|(used, _)| *used == id) || self.get(id).is_ok()
    }

    /// A request that needs one person is about to be carried out; durable when it returns.
    pub fn use_once(&mut self, request: &Request, now: Time) -> Result<(), ApprovalError> {
        if self.is_used(request.id) {
            return Err(ApprovalError::Used);
        }
        if self.file.used.len() >= USED_MAX {
            return Err(ApprovalError::TooMany);
        }
        let (id, until) = (request.id, request.expires_at);
        self.change(|file| {
            file.used.retain(|(_, until)| *until > now);
            file.used.push((id, until));
        })
    }

    /// A request waits for another person from now on; durable when it returns.
    pub fn ask(&mut self, request: &Request, text: &str, asked: Said) -> Result<(), ApprovalError> {
        if self.is_used(request.id) {
            return Err(ApprovalError::Used);
        }
        let waits = self.file.approvals.iter().filter(|approval| approval.state == State::Pending);
        if waits.count() >= PENDING_MAX {
            return Err(ApprovalError::TooMany);
        }
        let approval = Approval {
            id: request.id,
            text: text.to_owned(),
            asked,
            decided: None,
            state: State::Pending,
            result: None,
        };
        let told = recorded("approval.request", &approval, request, Some(&approval.asked), None)?;
        self.change(|file| {
            file.approvals.push(approval);
            file.untold.push(told);
        })
    }

    /// Somebody else's word; durable when it returns. Whether they may give it was checked.
    pub fn decide(&mut self, id: ApprovalId, said: Said, approves: bool) -> Result<(), ApprovalError> {
        let approval = self.get(id)?;
        if approval.state != State::Pending {
            return Err(ApprovalError::NotPending(approval.state.name()));
        }
        let (action, state) = if approves {
            ("approval.approve", State::Approved)
        } else {
            ("approval.reject", State::Rejected)
        };
        let told = recorded(action, approval, &approval.request()?, Some(&said), None)?;
        self.step(id, told, |approval| {
            approval.state = state;
            approval.decided = Some(said);
        })
    }

    /// What came of an approved request; durable when it returns.
    pub fn end(&mut self, id: ApprovalId, came: Result<String, String>) -> Result<(), ApprovalError> {
        let approval = self.get(id)?;
        if approval.state != State::Approved {
            return Err(ApprovalError::NotPending(approval.state.name()));
        }
        let failed = came.is_err().then_some("failed");
        let told = recorded("approval.execute", approval, &approval.request()?, None, failed)?;
        self.step(id, told, |approval| {
            approval.state = if came.is_ok() { State::Executed } else { State::Failed };
            approval.result = Some(came.unwrap_or_else(|why| why));
        })
    }

    /// What nobody decided in time is void; durable when it returns.
    pub fn expire(&mut self, now: Time) -> Result<(), ApprovalError> {
        let over = |approval: &&Approval| {
            approval.state == State::Pending
                && approval.request().map_or(true, |request| request.expires_at <= now)
        };
        let over: Vec<ApprovalId> =
            self.file.approvals.iter().filter(over).map(|approval| approval.id).collect();
        for id in over {
            let approval = self.get(id)?;
            let told = recorded("approval.expire", approval, &approval.request()?, None, None)?;
            self.step(id, told, |approval| approval.state = State::Expired)?;
        }
        Ok(())
    }

    /// Somebody was refused: for the log. Nothing of what they sent is in it.
    pub fn note_refusal(
        &mut self,
        (id, person): (Option<ApprovalId>, Option<PersonId>),
        through: &str,
        code: &str,
        now: Time,
    ) -> Result<(), ApprovalError> {
        let told = Recorded {
            event: EventId::make(now)?,
            action: "approval.refuse".to_owned(),
            actor: Some(person.map_or_else(|| through.to_owned(), |person| person.to_string())),
            target: ("approval".to_owned(), id.map(|id| id.to_string()).unwrap_or_default()),
            failed: Some(code.to_owned()),
            fields: vec![through.to_owned()],
            note: None,
        };
        self.change(|file| file.untold.push(told))
    }

    /// An approved request was begun, and who had to do it did not answer: whether it is begun once more.
    pub fn begins_again(&mut self, id: ApprovalId) -> bool {
        let begun = self.begun.entry(id).or_default();
        *begun = begun.saturating_add(1);
        *begun < BEGUN_MAX
    }

    /// What is approved and was not carried out.
    pub fn approved(&self) -> Vec<ApprovalId> {
        let waits = self.file.approvals.iter().filter(|approval| approval.state == State::Approved);
        waits.map(|approval| approval.id).collect()
    }

    /// What the log has not been told.
    pub fn untold(&self) -> &[Recorded] {
        &self.file.untold
    }

    /// The log has these.
    pub fn told(&mut self, events: &[EventId]) -> Result<(), ApprovalError> {
        self.change(|file| file.untold.retain(|told| !events.contains(&told.event)))
    }

    /// A line for each.
    pub fn table(&self, name: impl Fn(PersonId) -> String) -> AdminAnswer {
        let head = ["id", "verb", "asked by", "decided by", "until", "state", "result"];
        let line = |approval: &Approval| {
            let request = approval.request().ok();
            let decided = approval.decided.as_ref();
            vec![
                approval.id.to_string(),
                request.as_ref().map(|request| request.verb.clone()).unwrap_or_default(),
                name(approval.asked.person),
                decided.map(|said| name(said.person)).unwrap_or_default(),
                request.map(|request| request.expires_at.to_string()).unwrap_or_default(),
                approval.state.name().to_owned(),
                approval.result.clone().unwrap_or_default(),
            ]
        };
        let head = head.map(str::to_owned).to_vec();
        AdminAnswer::Table(std::iter::once(head).chain(self.file.approvals.iter().map(line)).collect())
    }

    fn step(
        &mut self,
        id: ApprovalId,
        told: Recorded,
        step: impl FnOnce(&mut Approval),
    ) -> Result<(), ApprovalError> {
        self.change(|file| {
            if let Some(approval) = file.approvals.iter_mut().find(|approval| approval.id == id) {
                step(approval);
            }
            file.untold.push(told);
        })
    }

    /// Makes a change and keeps it on disk: all of it or, whatever fails, nothing of it.
    fn change(&mut self, change: impl FnOnce(&mut File)) -> Result<(), ApprovalError> {
        let mut file = self.file.clone();
        change(&mut file);
        let ended = file.approvals.iter().filter(|approval| approval.state.has_ended()).count();
        let mut surplus = ended.saturating_sub(ENDED_MAX);
        let used = &mut file.used;
        file.approvals.retain(|approval| {
            let goes = surplus > 0 && approval.state.has_ended();
            surplus -= usize::from(goes);
            // Its signature could be shown once more until it is void.
            used.extend(approval.request().ok().filter(|_| goes).map(|asked| (asked.id, asked.expires_at)));
            !goes
        });
        durable::write(&self.path, &serde_json::to_vec_pretty(&file).unwrap_or_default())
            .map_err(|error| ApprovalError::Io(self.path.clone(), "written", error.kind()))?;
        self.file = file;
        Ok(())
    }
}

/// What the log is told of a step: the verb, the persons and the digest of the text, never what stands in it.
fn recorded(
    action: &str,
    approval: &Approval,
    request: &Request,
    said: Option<&Said>,
    failed: Option<&str>,
) -> Result<Recorded, ApprovalError> {
    let at = said.map_or(approval.asked.at, |said| said.at);
    let mut fields = vec![request.verb.clone(), approval.asked.person.to_string()];
    fields.extend(approval.decided.as_ref().map(|said| said.person.to_string()));
    fields.extend(said.map(|said| said.through.clone()));
    Ok(Recorded {
        event: EventId::make(at)?,
        action: action.to_owned(),
        actor: said.map(|said| said.person.to_string()),
        target: ("approval".to_owned(), approval.id.to_string()),
        failed: failed.map(str::to_owned),
        fields,
        note: Some(format!("sha256:{}", digest_of(&approval.text))),
    })
}
