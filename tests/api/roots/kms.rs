//! A local AWS KMS that checks each signature by itself.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use cardvault::supervisor::confine::Confinement;
use cardvault::wire::unsealer::{AwsKmsSettings, ProviderSettings};

use super::{Place, Stand};
use crate::common::{name, wait_for};

const SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/api/roots/kms.py");
const KEY: &str = "alias/cardvault-test";
const REGION: &str = "eu-central-1";

pub(super) struct Kms {
    place: Place,
    port: u16,
    server: Option<Child>,
}

impl Kms {
    pub(super) fn new() -> Self {
        let place = Place::new();
        place.write_certificate();
        place.write_secret(
            "credentials",
            "[default]\naws_access_key_id = AKIDTEST\naws_secret_access_key = wJalrXUtnFEMI/K7MDENG+test\n",
        );
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
            endpoint: Some(format!("https://127.0.0.1:{}", self.port)),
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
            "[keys.aws_kms]\nregion = \"{REGION}\"\nkey = \"{KEY}\"\ncredentials = \"{}\"\nendpoint = \"https://127.0.0.1:{}\"\n\
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
        fs::write(self.place.at("refuse"), "").unwrap();
    }

    fn exchange(&mut self) {
        fs::write(self.place.at("exchange"), "").unwrap();
    }

    fn back(&mut self) {
        for name in ["refuse", "exchange"] {
            let _ = fs::remove_file(self.place.at(name));
        }
        if self.server.is_none() {
            self.serve();
        }
    }

    /// KMS has one key, whatever it wraps.
    fn root_keys(&self) -> Option<usize> {
        None
    }
}
