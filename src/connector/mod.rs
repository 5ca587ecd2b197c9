//! The connector language: how to talk to one payment processor, as data.
//!
//! A connector is a TOML file. It is parsed, checked and compiled once ([`Connector::parse`] finds every fault); then
//! it does two pure things. In the keeper it renders an operation and its [`Values`] into a request; in the forwarder
//! it maps an answer to a [`Mapped`] outcome. Shape: `spec` reads the file with `document` and `fault`; `op`, `leaf`,
//! `condition` and `template` are requests, filled by `render`; `rules`, `fields`, `updates` and `path` are answers, read by `answer`;
//! `webhook` is what a processor tells by itself; `money`, `decline`, `network` and `authorization` are dated data, `codes` the
//! table made from it. `language.md` beside this file is for who writes a connector.
//!
//! Invariant: no network, no file, no clock, no panic, no loop that a file or an answer could make endless.
//! Invariant: a value fills a leaf and cannot change the shape of a request (`no_value_changes_the_shape`).
//! Invariant: no error, fault or `Debug` holds a value (`errors_hold_no_value`).

mod answer;
mod authorization;
pub mod codes;
mod condition;
mod decline;
mod document;
mod explain;
mod fault;
mod fields;
mod leaf;
mod money;
mod names;
pub mod network;
mod op;
mod path;
mod render;
mod rules;
mod sign;
mod spec;
mod step;
mod template;
mod tree;
mod updates;
mod values;
mod webhook;
mod words;
mod xml;

#[cfg(test)]
pub(crate) mod tests;

use std::time::Duration;

use zeroize::Zeroizing;

pub use answer::{Avs, Mapped};
pub use authorization::Authorization;
pub use decline::DeclineClass;
pub use fault::Fault;
pub use fields::ZipCheck;
pub use money::{Currency, currency};
pub use op::Operation;
pub use render::{RenderError, Rendered};
pub use rules::Outcome;
pub use spec::{Endpoint, Evidence, Idempotency, IdempotencyKind};
pub use step::{Part, StepOutputs};
pub use updates::{CardUpdate, UpdateKind};
pub use values::{
    Amount, Billing, Card, EndpointParts, Initiator, Previous, Reason, SendMoment, StoredCredential,
    ThreeDSecure, Use, Values, attempt_number,
};
pub use webhook::{CredentialSets, Delivery, Notification, Says, Stated, Untrusted};
pub use words::Word;

use render::{Common, Header, Mode, Scope};

/// One processor's connector, compiled.
#[derive(Debug, Clone)]
pub struct Connector {
    name: Box<str>,
    version: u32,
    evidence: Evidence,
    source: Box<str>,
    date: Box<str>,
    hash: [u8; 32],
    live: Option<Endpoint>,
    test: Option<Endpoint>,
    timeout: Duration,
    credentials: Vec<Box<str>>,
    credential_notes: Vec<Box<str>>,
    optional: Vec<bool>,
    auth: Vec<Header>,
    sign: Option<sign::Sign>,
    steps: Vec<step::Step>,
    headers: Vec<Header>,
    idempotency: Idempotency,
    key: Option<Header>,
    settle: Option<Duration>,
    until: Option<Duration>,
    lookup_of: Vec<Operation>,
    authorization: Authorization,
    money: money::MoneyRules,
    maps: Vec<leaf::Map>,
    ops: Vec<op::Op>,
    format: tree::Format,
    /// Words of an answer that mean nothing is there.
    empty: Vec<Box<str>>,
    fields: fields::Fields,
    updates: updates::Updates,
    rules: Vec<rules::Rule>,
    declines: decline::DeclineTable,
    webhook: Option<webhook::Webhook>,
}

const BUILTIN: &[(&str, &str)] = &[
    ("adyen", include_str!("connectors/adyen.toml")),
    ("authorize_net", include_str!("connectors/authorize_net.toml")),
    ("authorize_net_json", include_str!("connectors/authorize_net_json.toml")),
    ("bluesnap", include_str!("connectors/bluesnap.toml")),
    ("braintree", include_str!("connectors/braintree.toml")),
    ("checkout", include_str!("connectors/checkout.toml")),
    ("cybersource", include_str!("connectors/cybersource.toml")),
    ("elavon", include_str!("connectors/elavon.toml")),
    ("nmi", include_str!("connectors/nmi.toml")),
    ("orbital", include_str!("connectors/orbital.toml")),
    ("payflow", include_str!("connectors/payflow.toml")),
    ("paypal", include_str!("connectors/paypal.toml")),
    ("sandbox", include_str!("connectors/sandbox.toml")),
    ("stripe", include_str!("connectors/stripe.toml")),
    ("vantiv", include_str!("connectors/vantiv.toml")),
    ("worldpay", include_str!("connectors/worldpay.toml")),
];

/// The text of a connector that comes with the program.
pub fn builtin_text(name: &str) -> Option<&'static str> {
    BUILTIN.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// A connector that comes with the program, compiled.
pub fn builtin(name: &str) -> Option<Connector> {
    Connector::parse(&format!("{name}.toml"), builtin_text(name)?).ok()
}

/// The names of the connectors that come with the program.
pub fn builtin_names() -> impl Iterator<Item = &'static str> {
    BUILTIN.iter().map(|(name, _)| *name)
}

impl Connector {
    /// Reads, checks and compiles a connector; on failure every fault, each with its line.
    pub fn parse(file_name: &str, text: &str) -> Result<Self, Vec<Fault>> {
        spec::parse(file_name, text)
    }

    /// Its name, as destinations refer to it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its version, counted by its author.
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// SHA-256 of its text: an attempt that was rendered by another text is looked up, never sent again.
    pub const fn version_hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// Whether the codes of its answers are those that the card network sends (field 39 of ISO 8583).
    pub fn has_network_codes(&self) -> bool {
        self.declines.is_of_the_network()
    }

    /// What it rests on, where that is found, and as of when (`YYYY-MM-DD`).
    pub fn evidence(&self) -> (Evidence, &str, &str) {
        (self.evidence, &self.source, &self.date)
    }

    /// Where live requests go; `None` if there is no live service.
    pub const fn live(&self) -> Option<&Endpoint> {
        self.live.as_ref()
    }

    /// Where test requests go.
    pub const fn test(&self) -> Option<&Endpoint> {
        self.test.as_ref()
    }

    /// How long an answer may take.
    pub const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The credential fields that a destination must have, each with a note for the operator.
    pub fn credentials(&self) -> impl Iterator<Item = (&str, &str)> {
        self.credentials.iter().zip(&self.credential_notes).map(|(field, note)| (&**field, &**note))
    }

    /// Whether its answers may say that the card itself has changed.
    pub fn updates_cards(&self) -> bool {
        !self.updates.is_empty()
    }

    /// Whether a destination may do without this credential.
    pub fn is_optional(&self, field: &str) -> bool {
        let mut all = self.credentials.iter().zip(&self.optional);
        all.any(|(known, optional)| **known == *field && *optional)
    }

    /// How this processor treats a second send of the same attempt.
    pub const fn idempotency(&self) -> &Idempotency {
        &self.idempotency
    }

    /// The look-up that tells what became of an attempt of this operation; `None` if none does, and then what it does
    /// not find proves nothing.
    pub fn lookup_for(&self, operation: Operation) -> Option<Operation> {
        let own = match operation {
            Operation::Capture => Some(Operation::LookupCapture),
            Operation::Refund => Some(Operation::LookupRefund),
            Operation::Void => Some(Operation::LookupVoid),
            Operation::Verify => Some(Operation::LookupVerify),
            Operation::Sale | Operation::Authorize => None,
            Operation::Lookup
            | Operation::LookupCapture
            | Operation::LookupRefund
            | Operation::LookupVoid
            | Operation::LookupVerify => return None,
        };
        let general = self.lookup_of.contains(&operation).then_some(Operation::Lookup);
        own.filter(|own| self.op(*own).is_some()).or(general)
    }

    /// What undoes an operation that was done but is not wanted: a void where the processor has it for this, else a
    /// refund of a sale.
    pub fn undo_for(&self, operation: Operation) -> Option<Operation> {
        if self.op(Operation::Void).is_some_and(|void| void.undoes.contains(&operation)) {
            return Some(Operation::Void);
        }
        (operation == Operation::Sale && self.op(Operation::Refund).is_some()).then_some(Operation::Refund)
    }

    /// How long an authorization holds, as of the file's date.
    pub const fn authorization(&self) -> &Authorization {
        &self.authorization
    }

    /// Whether the first capture ends an authorization, whatever is left of it.
    pub fn captures_once(&self) -> bool {
        self.op(Operation::Capture).is_some_and(|capture| capture.once)
    }

    /// Whether a refund cannot be rendered without the card: then there is none after the card was erased.
    pub fn refund_needs_card(&self) -> bool {
        self.op(Operation::Refund).is_some_and(op::Op::needs_card)
    }

    /// Whether a refund of a captured authorization names the capture, not the authorization.
    pub fn refunds_capture(&self) -> bool {
        self.op(Operation::Refund).is_some_and(|refund| refund.of_capture)
    }

    /// Whether what is done to a payment later, or some of it, cannot be rendered without the processor's id of the payment.
    pub fn later_needs_transaction(&self) -> bool {
        let later = [Operation::Capture, Operation::Refund, Operation::Void];
        later.into_iter().filter_map(|operation| self.op(operation)).any(op::Op::needs_transaction)
    }

    /// How long after sending a look-up that finds nothing proves nothing; `None` if there is no look-up.
    pub const fn settle(&self) -> Option<Duration> {
        self.settle
    }

    /// How long after sending a look-up that finds nothing still proves something; `None` if always.
    pub const fn until(&self) -> Option<Duration> {
        self.until
    }

    /// The operations that it has, in the order of the file.
    pub fn operations(&self) -> impl Iterator<Item = Operation> {
        self.ops.iter().map(|op| op.operation)
    }

    /// What one operation requires beyond the card and the amount, by template name.
    pub fn requires(&self, operation: Operation) -> Vec<String> {
        let names = self.op(operation).map_or(&[][..], |op| &op.requires);
        names.iter().map(|name| name.spelling(&self.credentials)).collect()
    }

    /// Whether the processor can be told this amount (ISO 4217 minor units) in this currency.
    pub fn check_amount(&self, minor: i64, currency_code: &str) -> Result<(), RenderError> {
        let known = currency(currency_code).ok_or(RenderError::UnknownCurrency)?;
        self.money.to_processor(minor, &known)?;
        Ok(())
    }

    /// The smallest amounts that it says it takes, by currency, in ISO 4217 minor units: what a verification holds for a moment
    /// where there is no operation for one of zero.
    pub fn smallest_amounts(&self) -> impl Iterator<Item = (&str, i64)> {
        let all = self.money.smallest.iter();
        all.filter_map(|(code, amount)| Some((std::str::from_utf8(code).ok()?, *amount)))
    }

    /// The request of an operation. Pure; fails before anything could be sent.
    pub fn render(&self, operation: Operation, values: &Values<'_>) -> Result<Rendered, RenderError> {
        render::render(self.find_op(operation)?, &self.common(), &self.scope(operation, values, Mode::Send))
    }

    /// What a MAC of that request covers: method, path, headers that do not authenticate, body; the verification
    /// code, credentials and volatile leaves blanked.
    pub fn render_for_mac(
        &self,
        operation: Operation,
        values: &Values<'_>,
    ) -> Result<Zeroizing<Vec<u8>>, RenderError> {
        render::render_for_mac(
            self.find_op(operation)?,
            &self.common(),
            &self.scope(operation, values, Mode::Mac),
        )
    }

    /// The request as a person may see it: the card truncated, secrets replaced by their names. Not to be sent.
    pub fn render_for_show(
        &self,
        operation: Operation,
        values: &Values<'_>,
    ) -> Result<Rendered, RenderError> {
        render::render(self.find_op(operation)?, &self.common(), &self.scope(operation, values, Mode::Show))
    }

    /// What an answer means. Never fails: what it cannot read is an error of unknown outcome.
    pub fn map(&self, operation: Operation, http_status: u16, body: &[u8]) -> Mapped {
        answer::map(self, operation, http_status, body, &[])
    }

    /// The same for a look-up whose answer is a list of several attempts: ours stands under one of these names, its id or its
    /// short reference.
    pub fn map_attempt(&self, operation: Operation, http_status: u16, body: &[u8], ours: &[&str]) -> Mapped {
        answer::map(self, operation, http_status, body, ours)
    }

    /// The steps: name, and where each goes in live and in test if not where the operations go.
    pub fn steps(&self) -> impl Iterator<Item = (&str, Option<&Endpoint>, Option<&Endpoint>)> {
        self.steps.iter().map(|step| (&*step.name, step.live.as_ref(), step.test.as_ref()))
    }

    /// Whether the nth step sends card data.
    pub fn step_has_card(&self, index: usize) -> bool {
        self.steps.get(index).is_some_and(step::Step::has_card)
    }

    /// What the nth step gave; if it gave nothing, what its answer means: never that something was charged.
    pub fn read_step(&self, index: usize, http_status: u16, body: &[u8]) -> Result<StepOutputs, Box<Mapped>> {
        let step = self.steps.get(index);
        match step.and_then(|step| step.outputs(self.format, http_status, body)) {
            Some(outputs) => Ok(outputs),
            None => Err(Box::new(answer::of_a_failed_step(self, http_status, body))),
        }
    }

    /// Puts what steps gave, in their order, in the place of the marks that a rendered request holds. `step` says that the
    /// request is itself a step's.
    pub fn place_outputs(
        &self,
        (operation, step): (Operation, Option<usize>),
        part: Part,
        text: &[u8],
        mark: &str,
        outputs: &[&StepOutputs],
    ) -> Zeroizing<Vec<u8>> {
        let op =
            step.and_then(|index| self.steps.get(index)).map_or_else(|| self.op(operation), |s| Some(&s.op));
        let body = op.map_or(&template::Body::None, |op| &op.body);
        Zeroizing::new(step::place(part, body, text.into(), mark, outputs).into_owned())
    }

    fn op(&self, operation: Operation) -> Option<&op::Op> {
        self.ops.iter().find(|op| op.operation == operation)
    }

    fn find_op(&self, operation: Operation) -> Result<&op::Op, RenderError> {
        self.op(operation).ok_or(RenderError::NoOperation(operation.text()))
    }

    fn common(&self) -> Common<'_> {
        Common {
            auth: &self.auth,
            headers: &self.headers,
            idempotency: self.key.as_ref(),
            sign: self.sign.as_ref(),
            steps: &self.steps,
        }
    }

    fn scope<'v>(&'v self, operation: Operation, values: &'v Values<'v>, mode: Mode) -> Scope<'v> {
        Scope {
            values,
            credentials: &self.credentials,
            maps: &self.maps,
            money: &self.money,
            operation,
            mode,
            signed: sign::Signed::default(),
        }
    }
}
