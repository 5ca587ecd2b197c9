//! A local AWS KMS that checks each signature by itself.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use cardvault::supervisor::confine::Confinement;
use cardvault::wire::unsealer::{AwsKmsSettings, ProviderSettings};

use super::{Place, Stand};
use crate::common::{name, signal, wait_for};

const SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/api/roots/kms.py");
const KEY: &str = "alias/cardvault-test";
const REGION: &str = "eu-central-1";
/// Of the vault, and some that are no business of its.
pub(super) const CREDENTIALS: &str = "[default]\naws_access_key_id = AKIDTEST\naws_secret_access_key = wJalrXUtnFEMI/K7MDENG+test\n\
                                      [other]\naws_session_token = other\n";

pub(super) struct Kms {
    place: Place,
    port: u16,
    server: Option<Child>,
}

impl Kms {
    pub(super) fn new() -> Self {
        let place = Place::new();
        place.write_certificate();
        place.write_secret("credentials", CREDENTIALS);
        let mut kms = Self { place, port: 0, server: None };
        kms.serve();
        kms
    }

    fn serve(&mut self) {
        let port_file = self.place.at("port");
        let _ = fs::remove_file(&port_file);
        let mut server = Command::new("python3");
        server.args([SERVER, name(&self.place.at("")), name(&port_file), &self.port.to_string()]);
        let server = server.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        self.server = Some(server.expect("python3 is missing: apt-get install python3, or run tests/run"));
        self.port = wait_for("the local KMS", || fs::read_to_string(&port_file).ok()?.parse().ok());
    }

    /// It answers with this failure, until [`Stand::back`].
    pub(super) fn fail(&self, kind: &str) {
        fs::write(self.place.at("fail"), kind).unwrap();
    }

    /// The vault's credentials.
    pub(super) fn give(&self, credentials: &str) {
        self.place.write_secret("credentials", credentials);
    }

    /// The server stands still, and keeps its connections; [`Stand::back`] lets it go on.
    pub(super) fn hang(&self) {
        signal(self.server.as_ref().unwrap().id(), rustix::process::Signal::STOP);
    }

    fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

impl Drop for Kms {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Stand for Kms {
    fn name(&self) -> &'static str {
        "aws-kms"
    }

    fn settings(&self) -> ProviderSettings {
        ProviderSettings::AwsKms(AwsKmsSettings {
            region: REGION.to_owned(),
            key: KEY.to_owned(),
            endpoint: Some(format!("https://localhost:{}", self.port)),
        })
    }

    fn files(&self) -> Vec<PathBuf> {
        vec![self.place.at("credentials"), self.place.at("certificate.pem")]
    }

    fn confinement(&self) -> Confinement {
        Confinement::unsealer().with_host(self.port)
    }

    fn section(&self) -> String {
        format!(
            "[keys.aws_kms]\nregion = \"{REGION}\"\nkey = \"{KEY}\"\ncredentials = \"{}\"\nendpoint = \"https://localhost:{}\"\n\
             trust = \"{}\"\n",
            name(&self.place.at("credentials")),
            self.port,
            name(&self.place.at("certificate.pem"))
        )
    }

    fn away(&mut self) {
        self.stop();
    }

    fn refuse(&mut self) {
        self.fail("AccessDeniedException");
    }

    fn exchange(&mut self) {
        fs::write(self.place.at("exchange"), "").unwrap();
    }

    fn back(&mut self) {
        for name in ["fail", "exchange"] {
            let _ = fs::remove_file(self.place.at(name));
        }
        match &self.server {
            Some(server) => signal(server.id(), rustix::process::Signal::CONT),
            None => self.serve(),
        }
    }

    /// KMS has one key, whatever it wraps.
    fn root_keys(&self) -> Option<usize> {
        None
    }
}
