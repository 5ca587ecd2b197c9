//! The loaded destinations: where each is dialed, whom it must prove to be, and how its answers are read.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use hyper::Uri;
use hyper::header::HeaderValue;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::TlsConnector;

use super::connection::BODY_BYTES_MAX;
use super::pool::Pool;
use super::steps::Step;
use crate::connector::Connector;
use crate::forwarding::spec::Rules;
use crate::wire::control::Destination;

/// A destination, ready for exchanges.
pub(super) struct Route {
    /// How its answers are read.
    pub(super) reads: Reads,
    /// How long one exchange may take, dialing included.
    pub(super) timeout: Duration,
    /// Where it is.
    pub(super) target: Arc<Target>,
    /// What goes before some of its requests, in the order of the connector.
    pub(super) steps: Vec<Step>,
}

impl Route {
    /// What one exchange may take.
    pub(super) fn limits(&self) -> Limits {
        Limits { within: self.timeout, body_bytes_max: self.reads.body_bytes_max() }
    }

    fn targets(&self) -> impl Iterator<Item = &Arc<Target>> {
        std::iter::once(&self.target).chain(self.steps.iter().filter_map(|step| step.target.as_ref()))
    }
}

/// What one exchange may take.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// Time, dialing included.
    pub(super) within: Duration,
    /// Bytes of the answer's body.
    pub(super) body_bytes_max: usize,
}

/// How a destination's answers are read.
pub(super) enum Reads {
    /// Mapped by a connector to a few fields.
    Mapped(Box<Connector>),
    /// Given back to the caller, redacted.
    Whole(Arc<Rules>),
}

impl Reads {
    /// Bytes of an answer's body.
    pub(super) fn body_bytes_max(&self) -> usize {
        match self {
            Self::Mapped(_) => BODY_BYTES_MAX,
            Self::Whole(rules) => usize::try_from(rules.spec.answer_bytes_max).unwrap_or(BODY_BYTES_MAX),
        }
    }
}

/// Where a destination is dialed; a reload that does not change it keeps its connections.
pub(super) struct Target {
    endpoint: String,
    trust_pem: String,
    /// Host name or address.
    pub(super) host: String,
    /// Port.
    pub(super) port: u16,
    /// The `Host` header.
    pub(super) host_header: HeaderValue,
    /// Whether only public addresses are dialed.
    pub(super) public_only: bool,
    /// What stands before every path; no slash at its end.
    pub(super) prefix: String,
    /// Trust and the name that the certificate must have; `None` for plain HTTP, which only settings can ask for.
    pub(super) tls: Option<(TlsConnector, ServerName<'static>)>,
    /// Connections that wait for the next request.
    pub(super) pool: Pool,
}

/// All destinations by name.
#[derive(Default)]
pub(super) struct Routes(HashMap<String, Arc<Route>>);

impl Routes {
    /// Compiles all destinations, or says what is wrong with the first that does not; targets that are as they were
    /// `before` keep their connections.
    pub(super) fn compile(all: Vec<Destination>, before: &Self) -> Result<Self, String> {
        let mut routes = HashMap::with_capacity(all.len());
        for one in all {
            let name = one.name.clone();
            let known = before.get(&name).map(|route| Arc::clone(&route.target));
            routes.insert(name, Arc::new(compile(one, known)?));
        }
        Ok(Self(routes))
    }

    /// The destination of that name.
    pub(super) fn get(&self, name: &str) -> Option<&Arc<Route>> {
        self.0.get(name)
    }

    /// The ports that are dialed.
    pub(super) fn ports(&self) -> BTreeSet<u16> {
        self.0.values().flat_map(|route| route.targets()).map(|target| target.port).collect()
    }

    /// Drops connections that waited too long.
    pub(super) fn sweep(&self) {
        self.0.values().flat_map(|route| route.targets()).for_each(|target| target.pool.sweep());
    }
}

fn compile(one: Destination, known: Option<Arc<Target>>) -> Result<Route, String> {
    let public_only = one.forward.as_ref().is_some_and(|to| to.public_only);
    let reads = match one.forward {
        Some(to) => Rules::compile(to.spec).map(|rules| Reads::Whole(Arc::new(rules))),
        None => Connector::parse(&one.connector, &one.connector_toml)
            .map(|connector| Reads::Mapped(Box::new(connector)))
            .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    };
    let reads = reads.map_err(|fault| format!("destination {}: {fault}", one.name))?;
    let same = known.filter(|target| target.is(&one.endpoint, &one.trust_pem, public_only));
    let target = match same {
        Some(target) => target,
        None => Arc::new(
            Target::new(one.endpoint, one.trust_pem, public_only)
                .map_err(|what| format!("destination {}: {what}", one.name))?,
        ),
    };
    let connector = match &reads {
        Reads::Mapped(connector) => Some(connector),
        Reads::Whole(_) => None,
    };
    let steps: Result<Vec<Step>, String> = connector
        .into_iter()
        .flat_map(|connector| connector.steps())
        .map(|(name, ..)| {
            let endpoint = one.step_endpoints.get(name).cloned();
            let target = endpoint
                .map(|endpoint| Target::new(endpoint, target.trust_pem.clone(), public_only))
                .transpose();
            let target = target.map_err(|what| format!("destination {}, step {name}: {what}", one.name))?;
            Ok(Step::new(target.map(Arc::new)))
        })
        .collect();
    let steps = steps?;
    Ok(Route { reads, timeout: Duration::from_secs(one.timeout_seconds.max(1)), target, steps })
}

impl Target {
    /// Whether it is dialed just so: then its connections may be used on.
    pub(super) fn is(&self, endpoint: &str, trust_pem: &str, public_only: bool) -> bool {
        self.endpoint == endpoint && self.trust_pem == trust_pem && self.public_only == public_only
    }

    /// Where `endpoint` is, if it can be dialed at all.
    pub(super) fn new(endpoint: String, trust_pem: String, public_only: bool) -> Result<Self, &'static str> {
        const URL: &str = "the endpoint must be https://host[:port][/path], without credentials or query";
        let url: Uri = endpoint.parse().map_err(|_| URL)?;
        let authority = url.authority().filter(|authority| !authority.as_str().contains('@')).ok_or(URL)?;
        if url.query().is_some() || authority.host().is_empty() {
            return Err(URL);
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let (default_port, tls) = match url.scheme_str() {
            Some("http") => (80, None),
            Some("https") => {
                let name = ServerName::try_from(host.clone()).map_err(|_| URL)?;
                (443, Some((trust(&trust_pem)?, name)))
            }
            Some(_) | None => return Err(URL),
        };
        Ok(Self {
            port: authority.port_u16().unwrap_or(default_port),
            host_header: HeaderValue::from_str(authority.as_str()).map_err(|_| URL)?,
            prefix: url.path().trim_end_matches('/').to_owned(),
            public_only,
            host,
            tls,
            endpoint,
            trust_pem,
            pool: Pool::default(),
        })
    }
}

/// TLS 1.2 or 1.3 to a host whose certificate chains to one of these and to nothing else.
fn trust(pem: &str) -> Result<TlsConnector, &'static str> {
    const PEM: &str = "its trust file holds no usable certificate in PEM";
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.map_err(|_| PEM)?).map_err(|_| PEM)?;
    }
    if roots.is_empty() {
        return Err(PEM);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| "TLS cannot be set up")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}
