//! Rendering: one operation and its values become a request. Pure, bounded, and without a way to print a value.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};
use zeroize::Zeroizing;

use super::leaf::{Leaf, Map};
use super::money::{MoneyRules, NotRepresentable, currency, decimal};
use super::names::{Moment, Money, Name, Secret, Signing};
use super::op::{Op, Operation};
use super::sign::{Sign, Signed};
use super::step::{self, Step};
use super::template::{Body, write_pairs};
use super::values::Values;
use super::words::Word;

/// All but the unreserved characters of RFC 3986: what is left cannot end a segment, a pair or a value.
pub(super) const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Room that fits almost every body, so that a body with a card in it is not moved while it grows.
pub(super) const BODY_BYTES_USUAL: usize = 8 * 1024;

/// What servers take of a header or a path at most.
const LINE_BYTES_MAX: usize = 8 * 1024;

/// A request ready to be sent. It holds the card: wiped when dropped, and without a `Debug` that prints it.
pub struct Rendered {
    /// `GET`, `POST`, `PUT`, `PATCH` or `DELETE`.
    pub method: &'static str,
    /// Begins with `/`; the destination's base URL goes before it.
    pub path_and_query: String,
    /// In the order of the connector file. Host and Content-Length are the forwarder's.
    pub headers: Vec<(String, Zeroizing<String>)>,
    /// Empty for an operation without a body.
    pub body: Zeroizing<Vec<u8>>,
    /// What goes before it, in order: each step's index in the connector and its request.
    pub steps: Vec<(usize, Rendered)>,
}

impl std::fmt::Debug for Rendered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rendered(REDACTED)")
    }
}

/// Why nothing was rendered. It names a field of the template, never what is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// The connector does not have this operation.
    #[error("the connector has no operation `{0}`")]
    NoOperation(&'static str),
    /// A field that this connector needs is not there.
    #[error("`{0}` is missing")]
    Missing(String),
    /// The processor cannot be told this amount in this currency.
    #[error("the amount cannot be represented at this processor in its currency")]
    AmountNotRepresentable,
    /// The currency is not one of ISO 4217.
    #[error("the currency is not known")]
    UnknownCurrency,
    /// A value that its filter or map has no result for.
    #[error("`{0}` does not fit where the connector puts it")]
    Unfit(String),
    /// A value that would break a header or a path.
    #[error("a value cannot stand in {0}")]
    Unsendable(String),
    /// More than any processor takes.
    #[error("the request would be too large")]
    TooLarge,
}

/// What a rendering is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Send,
    /// Verification code, credentials and volatile leaves blanked.
    Mac,
    /// For a person: the card truncated, secrets replaced by their names.
    Show,
}

/// Everything that filling a leaf needs.
pub(super) struct Scope<'v> {
    pub(super) values: &'v Values<'v>,
    pub(super) credentials: &'v [Box<str>],
    pub(super) maps: &'v [Map],
    pub(super) money: &'v MoneyRules,
    pub(super) operation: Operation,
    pub(super) mode: Mode,
    /// What is known of the request while it is signed.
    pub(super) signed: Signed<'v>,
}

impl<'v> Scope<'v> {
    /// The text of a name, as this mode may see it.
    pub(super) fn text(&self, name: Name, as_decimal: bool) -> Result<Option<Cow<'v, str>>, RenderError> {
        match name {
            Name::Secret(secret) => Ok(self.secret(secret)),
            Name::Money(money) => self.money(money, as_decimal),
            Name::Plain(plain) => Ok(self.values.plain(plain)),
            Name::Operation => Ok(Some(Cow::Borrowed(self.operation.text()))),
            Name::Moment(moment) => Ok(self.moment(moment)),
            Name::Signing(part) => Ok(self.signed.text(part, self.values.endpoint.host)),
            Name::Output(step, output) => Ok(self.output(step, output)),
        }
    }

    fn moment(&self, name: Moment) -> Option<Cow<'v, str>> {
        let moment = self.values.moment;
        match name {
            Moment::Date => self.time_as("%a, %d %b %Y %H:%M:%S GMT").map(Cow::Owned),
            Moment::Time => self.time_as("%Y-%m-%dT%H:%M:%SZ").map(Cow::Owned),
            Moment::Timestamp => Some(Cow::Owned((moment.unix_ms / 1000).to_string())),
            Moment::TimestampMs => Some(Cow::Owned(moment.unix_ms.to_string())),
            Moment::Nonce => Some(Cow::Borrowed(moment.nonce)).filter(|nonce| !nonce.is_empty()),
        }
    }

    /// This moment in UTC, in a form whose signs the loader has checked.
    pub(super) fn time_as(&self, form: &str) -> Option<String> {
        let time = jiff::Timestamp::from_millisecond(self.values.moment.unix_ms).ok()?;
        Some(time.strftime(form).to_string())
    }

    fn output(&self, step: usize, output: usize) -> Option<Cow<'v, str>> {
        match self.mode {
            Mode::Send if self.values.moment.mark.is_empty() => None,
            Mode::Send => Some(Cow::Owned(step::mark(self.values.moment.mark, step, output))),
            Mode::Mac => Some(Cow::Borrowed("")),
            Mode::Show => Some(Cow::Borrowed("‹from the step before›")),
        }
    }

    /// The same scope with what is known of a request to be signed.
    pub(super) fn while_signing<'s>(&'s self, signed: Signed<'s>) -> Scope<'s> {
        Scope {
            values: self.values,
            credentials: self.credentials,
            maps: self.maps,
            money: self.money,
            operation: self.operation,
            mode: self.mode,
            signed,
        }
    }

    /// Whether there is a value, whatever the mode may see of it.
    pub(super) fn has(&self, name: Name) -> Result<bool, RenderError> {
        match name {
            Name::Secret(secret) => Ok(self.values.secret(secret, self.credentials).is_some()),
            Name::Money(_)
            | Name::Plain(_)
            | Name::Operation
            | Name::Moment(_)
            | Name::Signing(_)
            | Name::Output(..) => Ok(self.text(name, false)?.is_some()),
        }
    }

    fn secret(&self, name: Secret) -> Option<Cow<'v, str>> {
        let real = self.values.secret(name, self.credentials);
        match (self.mode, name) {
            (Mode::Send, _) | (Mode::Mac, Secret::CardNumber) => real.map(Cow::Borrowed),
            (Mode::Mac, Secret::CardCvc) => real.map(|_| Cow::Borrowed("")),
            (Mode::Mac, Secret::Credential(_)) => Some(Cow::Borrowed("")),
            (Mode::Show, Secret::CardNumber) => real.map(|number| Cow::Owned(truncated(number))),
            (Mode::Show, Secret::CardCvc) => real.map(|_| Cow::Borrowed("‹cvc›")),
            (Mode::Show, Secret::Credential(index)) => {
                self.credentials.get(index).map(|field| Cow::Owned(format!("‹{field}›")))
            }
        }
    }

    fn money(&self, name: Money, as_decimal: bool) -> Result<Option<Cow<'v, str>>, RenderError> {
        let Some(amount) = self.values.amount else { return Ok(None) };
        let known = currency(amount.currency).ok_or(RenderError::UnknownCurrency)?;
        let exponent = self.money.exponent(&known);
        let minor = match name {
            Money::Exponent => return Ok(Some(Cow::Owned(exponent.to_string()))),
            Money::Currency if self.money.lower_case => {
                return Ok(Some(Cow::Owned(amount.currency.to_ascii_lowercase())));
            }
            Money::Currency => return Ok(Some(Cow::Borrowed(amount.currency))),
            Money::CurrencyNumeric => {
                return Ok(Some(Cow::Owned(String::from_utf8_lossy(&known.numeric).into_owned())));
            }
            Money::Minor | Money::Decimal => Some(amount.minor),
            Money::OriginalAmount => self.values.stored_credential.and_then(|stored| stored.original_amount),
            Money::PrevAmount => self.values.previous.amount,
        };
        let Some(minor) = minor else { return Ok(None) };
        let there = self.money.to_processor(minor, &known)?;
        let digits = as_decimal || name == Money::Decimal;
        Ok(Some(Cow::Owned(if digits { decimal(there, exponent) } else { there.to_string() })))
    }

    pub(super) fn blanks_volatile(&self) -> bool {
        self.mode == Mode::Mac
    }

    pub(super) fn map(&self, index: usize) -> Option<&'v Map> {
        self.maps.get(index)
    }

    pub(super) fn missing(&self, name: Name) -> RenderError {
        RenderError::Missing(name.spelling(self.credentials))
    }

    pub(super) fn unfit(&self, name: Name) -> RenderError {
        RenderError::Unfit(name.spelling(self.credentials))
    }
}

impl From<NotRepresentable> for RenderError {
    fn from(_: NotRepresentable) -> Self {
        Self::AmountNotRepresentable
    }
}

/// first6…last4 for 15–19 digits, last4 only for shorter: the one format.
fn truncated(number: &str) -> String {
    let last = number.len().checked_sub(4).and_then(|from| number.get(from..)).unwrap_or_default();
    match number.get(..6) {
        Some(first) if number.len() >= 15 => format!("{first}…{last}"),
        Some(_) | None => format!("…{last}"),
    }
}

/// The parts of a connector that its requests have in common.
pub(super) struct Common<'c> {
    pub(super) auth: &'c [Header],
    pub(super) headers: &'c [Header],
    pub(super) idempotency: Option<&'c Header>,
    pub(super) sign: Option<&'c Sign>,
    pub(super) steps: &'c [Step],
}

impl<'c> Common<'c> {
    /// What a step has of it: it identifies itself in its own way.
    const fn of_a_step(&self) -> Self {
        Self { auth: &[], headers: self.headers, idempotency: None, sign: None, steps: &[] }
    }

    fn steps_before(&self, op: &Op) -> impl Iterator<Item = (usize, &'c Step)> {
        let operation = op.operation;
        self.steps.iter().enumerate().filter(move |(_, step)| step.goes_before(operation))
    }
}

/// A header and its value.
#[derive(Debug, Clone)]
pub(super) struct Header {
    pub(super) name: Box<str>,
    pub(super) value: Leaf,
    /// The value is sent in base64, with this before it.
    pub(super) base64_after: Option<Box<str>>,
}

/// Renders one operation, and the steps before it.
pub(super) fn render(op: &Op, common: &Common<'_>, scope: &Scope<'_>) -> Result<Rendered, RenderError> {
    check_required(op, scope)?;
    let of_a_step = common.of_a_step();
    let steps: Result<Vec<_>, RenderError> = common
        .steps_before(op)
        .map(|(index, step)| Ok((index, render(&step.op, &of_a_step, scope)?)))
        .collect();
    let path_and_query = path_and_query(op, scope)?;
    let signed_path = format!("{}{path_and_query}", scope.values.endpoint.prefix);
    let sign = op.sign.as_ref().or(common.sign);
    let mut signed = Signed { method: op.method.text(), path: &signed_path, ..Signed::default() };
    let mut signature = String::new();
    if let Some(sign) = sign.filter(|sign| !sign.covers_body()) {
        signature = sign.make(&scope.while_signing(signed), &[])?;
        signed.signature = &signature;
    }
    let mut body = Zeroizing::new(Vec::with_capacity(usual_size(&op.body)));
    op.body.write(&scope.while_signing(signed), &mut body)?;
    let digest = digest_of(sign, scope, &body);
    signed.digest = &digest;
    let late = match sign.filter(|sign| sign.covers_body()) {
        Some(sign) => sign.make(&scope.while_signing(signed), &body)?,
        None => signature.clone(),
    };
    signed.signature = &late;
    let mut sent_digest = None;
    if sign.is_some_and(Sign::covers_body) && holds_signature(&op.body) {
        // What was signed is the body without its signature; what is sent has it.
        body.clear();
        op.body.write(&scope.while_signing(signed), &mut body)?;
        sent_digest = Some(digest_of(sign, scope, &body));
    }
    signed.digest = sent_digest.as_deref().unwrap_or(&digest);
    let scope = scope.while_signing(signed);
    let mut headers = Vec::with_capacity(8);
    if let Some(kind) = op.content_type() {
        headers.push(("Content-Type".to_owned(), Zeroizing::new(kind.to_owned())));
    }
    let own = sign.map_or(&[][..], |sign| &sign.headers);
    let auth = common.auth.iter().chain(own);
    for header in auth.chain(common.headers).chain(idempotency(op, common)).chain(&op.headers) {
        push_header(header, &scope, &mut headers)?;
    }
    Ok(Rendered { method: op.method.text(), path_and_query, headers, body, steps: steps? })
}

fn digest_of(sign: Option<&Sign>, scope: &Scope<'_>, body: &[u8]) -> String {
    match sign {
        Some(_) if scope.mode == Mode::Show => "‹digest›".to_owned(),
        Some(sign) => sign.digest(body),
        None => String::new(),
    }
}

fn holds_signature(body: &Body) -> bool {
    body.any_leaf(&|leaf| leaf.names().any(|name| name == Name::Signing(Signing::Signature)))
}

/// The bytes that a MAC of the request covers: each part behind its length, authentication headers left out.
pub(super) fn render_for_mac(
    op: &Op,
    common: &Common<'_>,
    scope: &Scope<'_>,
) -> Result<Zeroizing<Vec<u8>>, RenderError> {
    check_required(op, scope)?;
    let mut headers = Vec::new();
    for header in common.headers.iter().chain(idempotency(op, common)).chain(&op.headers) {
        push_header(header, scope, &mut headers)?;
    }
    let mut body = Zeroizing::new(Vec::with_capacity(usual_size(&op.body)));
    op.body.write(scope, &mut body)?;
    let path = path_and_query(op, scope)?;
    let mut out = Zeroizing::new(Vec::with_capacity(body.len() + 1024));
    let of_a_step = common.of_a_step();
    for (_, step) in common.steps_before(op) {
        out.extend_from_slice(&render_for_mac(&step.op, &of_a_step, scope)?);
    }
    let names = headers.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]);
    let head = [op.operation.text().as_bytes(), op.method.text().as_bytes(), path.as_bytes()];
    for part in head.into_iter().chain(names).chain([body.as_slice()]) {
        out.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        out.extend_from_slice(part);
    }
    Ok(out)
}

const fn usual_size(body: &Body) -> usize {
    match body {
        Body::None => 0,
        Body::Json(_) | Body::Form(_) | Body::Xml(..) => BODY_BYTES_USUAL,
    }
}

fn check_required(op: &Op, scope: &Scope<'_>) -> Result<(), RenderError> {
    for name in &op.requires {
        if !scope.has(*name)? {
            return Err(scope.missing(*name));
        }
    }
    Ok(())
}

/// A look-up changes nothing, so it carries no key.
fn idempotency<'c>(op: &Op, common: &Common<'c>) -> Option<&'c Header> {
    common.idempotency.filter(|_| op.has_key())
}

fn push_header(
    header: &Header,
    scope: &Scope<'_>,
    out: &mut Vec<(String, Zeroizing<String>)>,
) -> Result<(), RenderError> {
    let Some(value) = header.value.fill(scope)? else { return Ok(()) };
    let encoded = header.base64_after.as_ref().map(|before| {
        Zeroizing::new(match scope.mode {
            Mode::Show => format!("{before}base64({})", value.as_str()),
            Mode::Send | Mode::Mac => {
                format!(
                    "{before}{}",
                    *Zeroizing::new(data_encoding::BASE64.encode(value.as_str().as_bytes()))
                )
            }
        })
    });
    let text = encoded.as_ref().map_or_else(|| value.as_str(), |text| text.as_str());
    if text.len() > LINE_BYTES_MAX {
        return Err(RenderError::TooLarge);
    }
    let shown = scope.mode == Mode::Show && text.chars().all(|c| !c.is_control());
    if !shown && !text.bytes().all(|byte| (0x20..=0x7e).contains(&byte)) {
        return Err(RenderError::Unsendable(format!("header `{}`", header.name)));
    }
    out.push((header.name.to_string(), Zeroizing::new(text.to_owned())));
    Ok(())
}

fn path_and_query(op: &Op, scope: &Scope<'_>) -> Result<String, RenderError> {
    let mut path = String::with_capacity(128);
    op.path.fill_path(scope, &mut path)?;
    // A dot segment would be resolved on the way, and name another resource.
    if path.split('/').any(|segment| segment == "." || segment == "..") {
        return Err(RenderError::Unsendable("the path".to_owned()));
    }
    let mut query = Vec::new();
    write_pairs(&op.query, scope, &mut query)?;
    if !query.is_empty() {
        path.push('?');
        path.push_str(&String::from_utf8_lossy(&query));
    }
    if path.len() > LINE_BYTES_MAX {
        return Err(RenderError::TooLarge);
    }
    Ok(path)
}
