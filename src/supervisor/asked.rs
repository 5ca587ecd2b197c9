//! How the supervisor takes what persons sign: what needs one of them is done at once, what needs two waits for the other, and what was
//! approved is carried out once, also by the supervisor that starts after one that died.

use serde::{Deserialize, Serialize};

use super::admin::{self, AdminRequest, Next};
use super::approvals::{Approval, Said, State};
use super::reach::Reach;
use super::two_person::{self, Refusal, Rules};
use super::vault::Vault;
use super::verbs::{DangerousVerb, scope_of};
use crate::card::id::{ApprovalId, PersonId};
use crate::clock::{Clock, SystemClock};
use crate::person::request::{Signed, Step};
use crate::wire::control::{AdminAnswer, AdminCommand};

/// What may be asked about requests.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalRequest {
    /// All that are kept.
    List,
    /// One, with its text.
    Show(String),
    /// Another person's word.
    Decide {
        /// Its id.
        id: String,
        /// `approve` or `reject`, signed.
        signed: Signed,
    },
}

impl Vault {
    /// What holds in this installation.
    pub(super) fn rules(&self) -> Rules {
        Rules::of(&self.config, self.key_store.environment())
    }

    /// Why a request is dangerous, if it is.
    async fn danger(&mut self, request: &AdminRequest) -> Result<Option<DangerousVerb>, String> {
        let (AdminRequest::PrincipalRotate { principal, .. }
        | AdminRequest::PrincipalRegrant { principal, .. }) = request
        else {
            return Ok(DangerousVerb::of(request));
        };
        let asked = AdminCommand::IsAdministrator { principal: principal.clone() };
        let is_administrator =
            matches!(self.ask_edge(asked).await?, AdminAnswer::Done(word) if word == "yes");
        Ok(is_administrator.then_some(DangerousVerb::AdminGrant))
    }

    /// Whether somebody who only holds the socket may ask for this.
    pub(super) async fn check_unsigned(&mut self, request: &AdminRequest) -> Result<(), String> {
        let rules = self.rules();
        if scope_of(request).is_none() || !rules.two_person {
            return Ok(());
        }
        let danger = self.danger(request).await?;
        rules.check_unsigned(request, danger).map_err(|refusal| refusal.to_string())
    }

    /// Takes what a person signed.
    pub(super) async fn take_signed(
        &mut self,
        text: &str,
        signed: &Signed,
        through: &str,
    ) -> Result<Next, String> {
        let (rules, now) = (self.rules(), SystemClock.now());
        let asking = match two_person::read(&self.people, &rules, (text, signed), through, now) {
            Ok(asking) => asking,
            Err(refusal) => return Err(self.refuse(&refusal, (None, signed), through).await),
        };
        // What waits lies in a file, as clear as it was signed.
        if two_person::holds_card(&asking.asked, &self.config.exempt) {
            return Err(self.refuse(&Refusal::Stray, (None, signed), through).await);
        }
        admin::check_open(self, &asking.asked)?;
        let danger = self.danger(&asking.asked).await?;
        if danger == Some(DangerousVerb::PeopleFound) || (danger.is_some() && rules.two_person) {
            let id = asking.request.id;
            if let Err(error) = self.approvals.ask(&asking.request, &asking.text, asking.said) {
                return Err(self.refuse(&error.into(), (Some(id), signed), through).await);
            }
            self.tell_of_approvals().await?;
            return Ok(Next::Answer(AdminAnswer::Done(format!(
                "{id} waits for another person until {}: `cardvault --as KEYFILE approvals approve {id}`",
                asking.request.expires_at
            ))));
        }
        if let Err(error) = self.approvals.use_once(&asking.request, now) {
            return Err(self.refuse(&error.into(), (Some(asking.request.id), signed), through).await);
        }
        let actor = asking.said.person.to_string();
        admin::perform(self, &asking.asked, &actor, Some(asking.request.id)).await
    }

    /// Has the log say that somebody was refused; gives the sentence for them.
    async fn refuse(
        &mut self,
        refusal: &Refusal,
        (id, signed): (Option<ApprovalId>, &Signed),
        through: &str,
    ) -> String {
        // Whose key they show; whether they hold it is another question.
        let shown = self.people.all().iter().find(|person| person.public == signed.by);
        let whose = (id, shown.map(|person| person.id));
        let noted = self.approvals.note_refusal(whose, through, refusal.code(), SystemClock.now());
        let told = match noted {
            Ok(()) => self.tell_of_approvals().await,
            Err(error) => Err(error.to_string()),
        };
        if let Err(reason) = told {
            tracing::error!(reason, "a refusal is not in the log yet");
        }
        refusal.to_string()
    }

    /// Answers about requests, and takes another person's word on one.
    pub(super) async fn answer_approvals(
        &mut self,
        request: &ApprovalRequest,
        through: &str,
    ) -> Result<AdminAnswer, String> {
        self.expire_approvals().await?;
        match request {
            ApprovalRequest::List => Ok(self.approvals.table(|id| self.person_name(id))),
            ApprovalRequest::Show(id) => Ok(self.show(self.known_approval(id)?)),
            ApprovalRequest::Decide { id, signed } => self.decide(id, signed, through).await,
        }
    }

    async fn decide(&mut self, id: &str, signed: &Signed, through: &str) -> Result<AdminAnswer, String> {
        let now = SystemClock.now();
        let approval = self.known_approval(id)?.clone();
        let id = approval.id;
        let given = (signed.step, signed);
        let checked = two_person::check_decision(&self.people, &self.rules(), &approval, given, through, now);
        let said = match checked {
            Ok(said) => said,
            Err(refusal) => return Err(self.refuse(&refusal, (Some(id), signed), through).await),
        };
        match signed.step {
            Step::Ask => Err("sign an approval or a rejection".to_owned()),
            Step::Reject => {
                self.approvals.decide(id, said, false).map_err(|error| error.to_string())?;
                self.tell_of_approvals().await?;
                Ok(AdminAnswer::Done(format!("{id} is rejected")))
            }
            Step::Approve => {
                // What a sealed vault cannot do is not approved for nothing.
                let asked = approval.request().map_err(|error| error.to_string())?;
                let asked = two_person::verb_in(&asked).map_err(|refusal| refusal.to_string())?;
                admin::check_open(self, &asked)?;
                self.approvals.decide(id, said, true).map_err(|error| error.to_string())?;
                // That it was approved is in the log before anything comes of it.
                self.tell_of_approvals().await?;
                self.execute(id).await
            }
        }
    }

    /// Carries out an approved request. A supervisor that dies before the end is on disk does it once more, and so does one whose question
    /// an edge or a keeper left unanswered: each verb knows by the id, or by how things stand, what it has done already.
    async fn execute(&mut self, id: ApprovalId) -> Result<AdminAnswer, String> {
        let approval = self.approvals.get(id).map_err(|error| error.to_string())?;
        let asked = two_person::approved(&self.people, &self.rules(), approval);
        let asked = asked.map_err(|refusal| refusal.to_string());
        let actor = approval.asked.person.to_string();
        let unanswered = self.unanswered;
        let came = match asked {
            Ok(asked) => self.perform_now(&asked, &actor, id).await,
            Err(sentence) => Err(sentence),
        };
        let kept = match &came {
            Ok(AdminAnswer::Done(sentence)) => Ok(sentence.clone()),
            Ok(AdminAnswer::Table(_)) => Ok("done".to_owned()),
            // A credential is shown once, to who asked; none is made for a request that waited.
            Ok(AdminAnswer::Credential { principal, .. }) => Ok(principal.clone()),
            Ok(AdminAnswer::Refused(sentence)) | Err(sentence) => Err(sentence.clone()),
        };
        if let Err(sentence) = &kept
            && self.unanswered != unanswered
            && self.approvals.begins_again(id)
        {
            return Err(format!(
                "{id} is approved, and it is not known yet what came of it ({sentence}): the vault goes on with it by itself; see \
                 `cardvault approvals show {id}`"
            ));
        }
        self.approvals.end(id, kept.clone()).map_err(|error| error.to_string())?;
        self.tell_of_approvals().await?;
        match kept {
            Ok(sentence) => Ok(AdminAnswer::Done(format!("{id} is executed: {sentence}"))),
            Err(sentence) => Err(format!("{id} was approved and could not be carried out: {sentence}")),
        }
    }

    async fn perform_now(
        &mut self,
        asked: &AdminRequest,
        actor: &str,
        id: ApprovalId,
    ) -> Result<AdminAnswer, String> {
        match admin::perform(self, asked, actor, Some(id)).await? {
            Next::Answer(answer) => Ok(answer),
            Next::Edge(command) => self.ask_edge(command).await,
        }
    }

    /// Voids what nobody decided in time, and carries out what was approved when the supervisor before this one died.
    pub(super) async fn tend_approvals(&mut self) -> Result<(), String> {
        self.expire_approvals().await?;
        for id in self.approvals.approved() {
            match self.execute(id).await {
                Ok(_) => tracing::info!(approval = %id, "an approved request was carried out"),
                Err(reason) => tracing::error!(approval = %id, reason, "an approved request failed"),
            }
        }
        Ok(())
    }

    async fn expire_approvals(&mut self) -> Result<(), String> {
        self.approvals.expire(SystemClock.now()).map_err(|error| error.to_string())?;
        self.tell_of_approvals().await
    }

    /// Has the edge write into the log what it has not been told of requests.
    async fn tell_of_approvals(&mut self) -> Result<(), String> {
        let untold = self.approvals.untold().to_vec();
        // A vault that is sealed has no log: it is told once there is one.
        if untold.is_empty() || self.sealed.is_some() {
            return Ok(());
        }
        let events: Vec<_> = untold.iter().map(|told| told.event).collect();
        self.ask_edge(AdminCommand::Record(untold)).await?;
        self.approvals.told(&events).map_err(|error| error.to_string())
    }

    fn known_approval(&self, id: &str) -> Result<&Approval, String> {
        let id = ApprovalId::parse(id).ok_or("there is no such request; see `cardvault approvals list`")?;
        self.approvals.get(id).map_err(|error| error.to_string())
    }

    fn show(&self, approval: &Approval) -> AdminAnswer {
        let said =
            |said: &Said| format!("{} at {} ({})", self.person_name(said.person), said.at, said.through);
        let line = |name: &str, value: String| vec![name.to_owned(), value];
        let mut lines = vec![
            line("id", approval.id.to_string()),
            line("state", approval.state.name().to_owned()),
            line("asked by", said(&approval.asked)),
        ];
        if let Some(decided) = &approval.decided {
            let word = if approval.state == State::Rejected { "rejected by" } else { "approved by" };
            lines.push(line(word, said(decided)));
        }
        lines.extend(approval.result.as_ref().map(|result| line("result", result.clone())));
        lines.push(line("text", approval.text.clone()));
        AdminAnswer::Table(lines)
    }

    fn person_name(&self, id: PersonId) -> String {
        let person = self.people.all().iter().find(|person| person.id == id);
        person.map_or_else(|| id.to_string(), |person| person.name.clone())
    }

    /// Refuses a configuration that is wider than what two persons approved, where two are needed.
    pub(super) fn check_reach(&self, reach: &Reach, approved: Option<&str>) -> Result<(), String> {
        if !self.rules().two_person || approved == Some(reach.sha256().as_str()) {
            return Ok(());
        }
        let wider = reach.widens(self.approvals.reach());
        if wider.is_empty() {
            return Ok(());
        }
        Err(format!(
            "two persons have to approve this configuration first (`cardvault --as KEYFILE reload`):\n{}",
            wider.join("\n")
        ))
    }

    /// Before anybody is served: the configuration must be one that was approved. Development takes the first as it is.
    pub(super) fn check_first_reach(&mut self, reach: &Reach) -> Result<(), String> {
        let rules = self.rules();
        if !rules.two_person {
            return Ok(());
        }
        // What was carried out is kept as the reach, until something narrower is; what was approved and not carried out yet counts too.
        let is_approved = |approval: &&Approval| {
            approval.state == State::Approved
                && matches!(
                    two_person::approved(&self.people, &rules, approval),
                    Ok(AdminRequest::ReloadTo { sha256, widens })
                        if sha256 == reach.sha256() && widens == reach.widens(self.approvals.reach())
                )
        };
        let is_first = self.approvals.reach().is_none() && !rules.production;
        if !is_first && self.approvals.all().iter().rfind(is_approved).is_none() {
            self.check_reach(reach, None)?;
        }
        self.approvals.keep_reach(reach.clone()).map_err(|error| error.to_string())
    }
}
