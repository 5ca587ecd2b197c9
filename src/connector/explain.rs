//! `cardvault connector explain`: what a connector says, for a person who decides whether to rely on it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Connector;
use super::op::{Op, Operation};
use super::spec::{Endpoint, IdempotencyKind};
use super::template::{Body, names_of};
use super::words::Word;

impl Connector {
    /// Lines of a heading and what stands under it, in the order in which a person asks.
    pub fn explain(&self) -> Vec<(&'static str, Vec<String>)> {
        let (evidence, source, date) = self.evidence();
        let mut out = vec![
            ("connector", vec![format!("{}, version {}", self.name, self.version)]),
            ("evidence", vec![format!("{} as of {date}", evidence.text()), source.to_owned()]),
            ("endpoints", self.explain_endpoints()),
            ("credentials", self.explain_credentials()),
            ("sent twice", vec![self.explain_idempotency()]),
            ("looked up", self.explain_look_ups()),
            ("webhooks", self.explain_webhooks()),
            ("operations", self.ops.iter().map(|op| self.explain_operation(op)).collect()),
            ("agreements", vec![self.explain_agreements()]),
            ("money", self.explain_money()),
            ("declines", self.explain_declines()),
            ("card updates", self.updates.explain()),
        ];
        out.retain(|(_, lines)| !lines.is_empty());
        out
    }

    fn explain_endpoints(&self) -> Vec<String> {
        let text = |endpoint: &Endpoint| match endpoint {
            Endpoint::Fixed(url) => url.to_string(),
            Endpoint::Operator => "as the destination says".to_owned(),
        };
        let mut lines: Vec<String> = Vec::new();
        lines.extend(self.live.as_ref().map(|url| format!("live: {}", text(url))));
        lines.extend(self.test.as_ref().map(|url| format!("test: {}", text(url))));
        for (name, live, test) in self.steps() {
            let elsewhere: Vec<String> = [live, test].into_iter().flatten().map(text).collect();
            let place = if elsewhere.is_empty() { "the same host".to_owned() } else { elsewhere.join(" | ") };
            lines.push(format!("first, step {name}: {place}"));
        }
        let of_steps = self.steps.iter().map(|step| &step.op);
        if self.sign.is_some() || self.ops.iter().chain(of_steps).any(|op| op.sign.is_some()) {
            lines.push("requests are signed".to_owned());
        }
        lines.push(format!("an answer may take {} s", self.timeout.as_secs()));
        lines
    }

    fn explain_idempotency(&self) -> String {
        let within = self.idempotency.ttl.map_or(String::new(), |ttl| format!(" for {}", span(ttl)));
        let first = match self.idempotency.kind {
            IdempotencyKind::Replay => format!("replay: the same key gives the same answer{within}"),
            IdempotencyKind::SuccessOnly => format!("success-only: only successes are remembered{within}"),
            IdempotencyKind::NaturalKey => {
                "natural-key: a second send is refused; it is looked up first".to_owned()
            }
            IdempotencyKind::None => {
                "none: nothing protects, so what is unknown is looked up, then voided, and never sent again"
                    .to_owned()
            }
        };
        let later = self.idempotency.later;
        if later == self.idempotency.kind {
            return first;
        }
        format!("{first}; captures, refunds and voids: {}{within}", later.text())
    }

    fn explain_look_ups(&self) -> Vec<String> {
        let sends = self.operations().filter(|operation| !operation.is_lookup());
        let (found, lost): (Vec<Operation>, Vec<Operation>) =
            sends.partition(|operation| self.lookup_for(*operation).is_some());
        let list = |of: &[Operation]| of.iter().map(|o| o.text()).collect::<Vec<_>>().join(", ");
        let mut lines = Vec::new();
        if !found.is_empty() {
            let settle = self.settle.map_or(String::new(), |settle| {
                format!("; \"not found\" proves nothing for {}", span(settle))
            });
            lines.push(format!("{}{settle}", list(&found)));
        }
        if !lost.is_empty() {
            lines.push(format!("never: {} (a person settles what stays unknown)", list(&lost)));
        }
        lines
    }

    fn explain_credentials(&self) -> Vec<String> {
        let line = |(field, note): (&str, &str)| {
            let may = if self.is_optional(field) { " (optional)" } else { "" };
            format!("{field}{may}: {note}")
        };
        self.credentials().map(line).collect()
    }

    fn explain_webhooks(&self) -> Vec<String> {
        let Some(webhook) = &self.webhook else { return Vec::new() };
        let secret = self.webhook_secret().unwrap_or_default();
        let list = |of: Vec<Operation>| of.iter().map(|o| o.text()).collect::<Vec<_>>().join(", ");
        let mut lines = vec![format!("{}; the key is {secret}", webhook.explain_signature())];
        lines.push(format!("tell what became of {}", list(webhook.tells(false))));
        let reversed = webhook.tells(true);
        if !reversed.is_empty() {
            lines
                .push(format!("and that it did not hold after all, of {} (a person's then)", list(reversed)));
        }
        lines
    }

    fn explain_operation(&self, op: &Op) -> String {
        let body = match op.body {
            Body::None => "no body",
            Body::Json(_) => "JSON",
            Body::Form(_) => "form",
            Body::Xml(_, None) => "XML",
            Body::Xml(_, Some(_)) => "XML in a form",
        };
        let required: Vec<String> = op.requires.iter().map(|name| name.spelling(&self.credentials)).collect();
        let required =
            if required.is_empty() { String::new() } else { format!("; requires {}", required.join(", ")) };
        let path: String = op.path.shape(&self.credentials);
        format!("{}: {} {path}, {body}{required}", op.operation.text(), op.method.text())
    }

    fn explain_agreements(&self) -> String {
        let mut said = BTreeSet::new();
        for op in &self.ops {
            let mut see = |name: super::names::Name| {
                let text = name.spelling(&self.credentials);
                said.extend(text.strip_prefix("stored_credential.").map(str::to_owned));
            };
            op.body.each_name(&mut see);
            op.query.iter().flat_map(|pair| names_of(pair.when.as_ref())).for_each(see);
        }
        if said.is_empty() {
            return "the processor is told nothing of an agreement".to_owned();
        }
        format!("the processor is told {}", said.into_iter().collect::<Vec<_>>().join(", "))
    }

    fn explain_money(&self) -> Vec<String> {
        let code = |code: &[u8; 3]| String::from_utf8_lossy(code).into_owned();
        let exponents =
            self.money.exponents.iter().map(|(c, n)| format!("{} has {n} decimal places here", code(c)));
        let multiples = self.money.multiples.iter().map(|(c, n)| format!("{} in multiples of {n}", code(c)));
        let smallest =
            self.money.smallest.iter().map(|(c, n)| format!("a verification holds {n} {}", code(c)));
        let mut lines: Vec<String> = exponents.chain(multiples).chain(smallest).collect();
        lines.push(format!("an authorization holds {} h", self.authorization.hours));
        lines
    }

    fn explain_declines(&self) -> Vec<String> {
        let count = self.declines.counts();
        count.map(|(class, count)| format!("{}: {count} codes", class.text())).collect()
    }
}

fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}
