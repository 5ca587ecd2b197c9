//! A token of SoftHSM 2, as Debian has it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cardvault::supervisor::confine::{Confinement, Role};
use cardvault::wire::unsealer::{Pkcs11Settings, ProviderSettings};

use super::{Place, Stand};
use crate::common::name;

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
const LABEL: &str = "cardvault test";
const PIN: &str = "482915";

/// A token in a directory of its own.
pub(super) struct Token {
    place: Place,
}

impl Token {
    pub(super) fn new() -> Self {
        let token = Self { place: Place::new() };
        token.write_pin(PIN);
        token.make("tokens");
        fs::write(
            token.configuration(),
            format!("directories.tokendir = {}\nlog.level = ERROR\n", name(&token.at("tokens"))),
        )
        .unwrap();
        token
    }

    fn at(&self, name: &str) -> PathBuf {
        self.place.at(name)
    }

    fn configuration(&self) -> PathBuf {
        self.at("softhsm2.conf")
    }

    fn write_pin(&self, pin: &str) {
        self.place.write_secret("pin", &format!("{pin}\n"));
    }

    /// A new token in this directory.
    fn make(&self, tokens: &str) {
        let (tokens, own) = (self.at(tokens), self.at("making.conf"));
        fs::create_dir(&tokens).unwrap();
        fs::write(&own, format!("directories.tokendir = {}\n", name(&tokens))).unwrap();
        let words = ["--init-token", "--free", "--label", LABEL, "--pin", PIN, "--so-pin", "90817263"];
        let made = Command::new("softhsm2-util").args(words).env("SOFTHSM2_CONF", &own).output();
        let made = made.expect("softhsm2-util is missing: apt-get install softhsm2, or run tests/run");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        give_away(&tokens);
    }

    /// Puts a key into the token that is known elsewhere.
    pub(super) fn plant(&self, label: &str) {
        let key = self.at("planted");
        fs::write(&key, [7; 32]).unwrap();
        let words =
            ["--import", name(&key), "--aes", "--token", LABEL, "--label", label, "--id", "07", "--pin", PIN];
        let own = self.at("making.conf");
        let put = Command::new("softhsm2-util").args(words).env("SOFTHSM2_CONF", own).output().unwrap();
        assert!(put.status.success(), "{}", String::from_utf8_lossy(&put.stderr));
        give_away(&self.at("tokens"));
    }
}

/// The library runs under the unsealer's uid where the vault is started as root.
fn give_away(path: &Path) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let uid = Some(Role::Unsealer.uid());
    std::os::unix::fs::chown(path, uid, uid).unwrap();
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| give_away(&entry.unwrap().path()));
    }
}

impl Stand for Token {
    fn name(&self) -> &'static str {
        "pkcs11"
    }

    fn settings(&self) -> ProviderSettings {
        ProviderSettings::Pkcs11(Pkcs11Settings { module: MODULE.to_owned(), token: LABEL.to_owned() })
    }

    fn files(&self) -> Vec<PathBuf> {
        vec![self.at("pin")]
    }

    fn confinement(&self) -> Confinement {
        let paths = [self.at("tokens"), self.configuration()];
        let environment = vec![("SOFTHSM2_CONF".to_owned(), name(&self.configuration()).to_owned())];
        Confinement::unsealer().with_library(Path::new(MODULE), &paths, environment)
    }

    fn section(&self) -> String {
        let (configuration, tokens, pin) = (self.configuration(), self.at("tokens"), self.at("pin"));
        format!(
            "[keys.pkcs11]\nmodule = \"{MODULE}\"\ntoken = \"{LABEL}\"\npin = \"{}\"\npaths = [\"{}\", \"{}\"]\n\
             environment.SOFTHSM2_CONF = \"{}\"\n",
            name(&pin),
            name(&tokens),
            name(&configuration),
            name(&configuration)
        )
    }

    fn away(&mut self) {
        fs::rename(self.at("tokens"), self.at("away")).unwrap();
        fs::create_dir(self.at("tokens")).unwrap();
        give_away(&self.at("tokens"));
    }

    fn refuse(&mut self) {
        self.write_pin("000000");
    }

    fn exchange(&mut self) {
        fs::rename(self.at("tokens"), self.at("away")).unwrap();
        self.make("tokens");
    }

    fn back(&mut self) {
        self.write_pin(PIN);
        if self.at("away").exists() {
            fs::remove_dir_all(self.at("tokens")).unwrap();
            fs::rename(self.at("away"), self.at("tokens")).unwrap();
        }
    }

    fn root_keys(&self) -> Option<usize> {
        let token = fs::read_dir(self.at("tokens")).unwrap().next().unwrap().unwrap().path();
        // SoftHSM keeps an object to a file, and the token's own beside them.
        let is_object = |name: &str| name.ends_with(".object") && name != "token.object";
        let names = fs::read_dir(token).unwrap().map(|entry| entry.unwrap().file_name());
        Some(names.filter(|name| is_object(name.to_str().unwrap())).count())
    }
}
