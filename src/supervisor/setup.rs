//! `cardvault init DIR`: everything that a vault needs on one machine, for development.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

use super::admin::{self, AdminRequest};
use super::confine::Role;
use super::key_store::KeyStore;
use crate::config::Config;
use crate::random;
use crate::roots::RootProvider;
use crate::wire::control::{AdminAnswer, PrincipalOrder};

/// How long the development certificates are good: short, so that nobody runs on them.
const CERTIFICATE_DAYS: i64 = 90;

/// What `init` is told.
#[derive(Clone, Debug, clap::Args)]
pub struct InitArgs {
    /// The directory to make.
    directory: PathBuf,
    /// The name of the installation.
    #[arg(long, default_value = "dev")]
    installation: String,
    /// What wraps the KEK: a file beside the vault, custodians, who make it at their ceremony, or a key in a token
    #[arg(long, value_enum, default_value_t = RootProvider::File)]
    provider: RootProvider,
    /// Where the API listens.
    #[arg(long, default_value = "127.0.0.1:8443")]
    api: std::net::SocketAddr,
    /// Where metrics listen.
    #[arg(long, default_value = "127.0.0.1:9464")]
    metrics: std::net::SocketAddr,
    /// Where the sandbox listens.
    #[arg(long, default_value = "127.0.0.1:9443")]
    sandbox: std::net::SocketAddr,
}

impl InitArgs {
    /// A development installation in `directory` that listens on ports of the kernel's choice.
    pub fn on_free_ports(directory: PathBuf, sandbox: std::net::SocketAddr) -> Self {
        let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let (installation, provider) = ("dev".to_owned(), RootProvider::File);
        Self { directory, installation, provider, api: any, metrics: any, sandbox }
    }

    /// What comes next where `init` could not make a KEK.
    pub const fn without_kek(&self) -> &'static str {
        match self.provider {
            RootProvider::File | RootProvider::Shares => {
                "there is no KEK yet: start it with `cardvault serve`, register custodians with `cardvault person add`, and make the KEK \
                 with them: `cardvault keys ceremony`; then make a principal"
            }
            RootProvider::Pkcs11 | RootProvider::Transit | RootProvider::AwsKms => {
                "there is no KEK yet: fill in the root provider's section of the configuration and the files that it names, and start it \
                 with `cardvault serve`, which makes the KEK; then make a principal: `cardvault principal add`"
            }
        }
    }
}

/// What `init` made.
#[derive(Clone, Debug)]
pub struct Made {
    /// The configuration file.
    pub config: PathBuf,
    /// The first administrator's credential; it is nowhere else. None where there is no KEK yet, and so nothing that could keep it.
    pub credential: Option<String>,
}

/// Makes a development installation. The directory must not hold one.
pub fn init(args: &InitArgs) -> Result<Made, String> {
    let directory = &args.directory;
    let config = directory.join("cardvault.toml");
    if config.exists() {
        return Err(format!("{} is there already; choose another directory", config.display()));
    }
    // Others may pass through to the database directory, which the edge owns; they may list nothing.
    make_directory(directory, 0o711)?;
    for (name, mode) in [("data", 0o700), ("keys", 0o700), ("tls", 0o700), ("credentials", 0o700)] {
        make_directory(&directory.join(name), mode)?;
    }
    if args.provider == RootProvider::File {
        // The first start makes the root key in it.
        write_secret(&directory.join("keys/root.key"), "")?;
    }
    write_secret(&directory.join("credentials/sandbox_secret_key"), &format!("sk_test_{}", make_word()?))?;
    write_new(&directory.join("keys/inventory.toml"), super::inventory::DEFAULT, 0o644)?;
    make_certificates(&directory.join("tls"))?;
    write_new(&config, &configuration(args), 0o644)?;
    let loaded = Config::load(&config).map_err(|error| error.to_string())?;
    KeyStore::create(&loaded.keys.key_store, &loaded.installation, &loaded.node)
        .map_err(|error| error.to_string())?;
    // Custodians make the KEK at their ceremony; others have to be configured first.
    if args.provider != RootProvider::File {
        return Ok(Made { config, credential: None });
    }
    let administrator = PrincipalOrder {
        name: "admin".to_owned(),
        person: true,
        tenant: None,
        scopes: [
            "admin:read",
            "admin:principals",
            "admin:tenants",
            "admin:keys",
            "audit:read",
            "evidence:read",
        ]
        .map(str::to_owned)
        .to_vec(),
        expires_at: None,
        charge_max: std::collections::BTreeMap::new(),
        day_max: std::collections::BTreeMap::new(),
        destinations: Vec::new(),
    };
    let answers = admin::ask(&config, &[AdminRequest::PrincipalAdd(administrator), AdminRequest::PublicKey])?;
    let mut answers = answers.into_iter();
    let (first, second) = (answers.next(), answers.next());
    match (first, second) {
        (Some(AdminAnswer::Credential { credential, .. }), Some(AdminAnswer::Done(key))) => {
            write_new(&directory.join("keys/audit.pub"), &format!("{key}\n"), 0o644)?;
            Ok(Made { config, credential: Some(credential) })
        }
        (Some(AdminAnswer::Refused(sentence)), _) | (_, Some(AdminAnswer::Refused(sentence))) => {
            Err(sentence)
        }
        _ => Err("the vault gave no credential".to_owned()),
    }
}

/// Started as root, the edge runs under its own uid: gives it the database directory, and checks that it can reach it.
pub(super) fn check_reach(config: &Config) -> Result<(), String> {
    let directory = &config.store.directory;
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let failed =
        |path: &Path, error: std::io::Error| format!("{} cannot be used: {}", path.display(), error.kind());
    let uid = Some(Role::Edge.uid());
    std::os::unix::fs::chown(directory, uid, uid).map_err(|error| failed(directory, error))?;
    for file in std::fs::read_dir(directory).map_err(|error| failed(directory, error))?.flatten() {
        std::os::unix::fs::chown(file.path(), uid, uid).map_err(|error| failed(&file.path(), error))?;
    }
    let real = directory.canonicalize().map_err(|error| failed(directory, error))?;
    for above in real.ancestors().skip(1) {
        let mode = std::fs::metadata(above).map_err(|error| failed(above, error))?.mode();
        if mode & 0o001 == 0 {
            return Err(format!(
                "the edge runs as uid {} and cannot pass through {}; put the installation elsewhere, such as \
                 /var/lib/cardvault, or run chmod o+x on it",
                Role::Edge.uid(),
                above.display()
            ));
        }
    }
    Ok(())
}

/// Where a token's settings are to be filled in.
const PKCS11: &str = "# The token: its vendor's library, its label, and a file (chmod 600) with the PIN of its user.\n\
    [keys.pkcs11]\nmodule = \"/usr/lib/softhsm/libsofthsm2.so\"\ntoken = \"cardvault\"\npin = \"keys/token.pin\"\n\
    # What the library reads and writes; it runs as uid 61845 where the vault is started as root.\n\
    paths = [\"/var/lib/cardvault-tokens\", \"/etc/cardvault/softhsm2.conf\"]\n\
    environment.SOFTHSM2_CONF = \"/etc/cardvault/softhsm2.conf\"\n\n";

/// The same of an engine.
const TRANSIT: &str = "# The engine: its server, a file (chmod 600) with a token whose policy deploy/openbao-policy.hcl shows.\n\
    [keys.transit]\nurl = \"https://bao.example:8200\"\ntoken = \"keys/transit.token\"\ntrust = \"keys/transit-ca.pem\"\n\n";

/// The same of KMS.
const AWS_KMS: &str = "# The key, and a file (chmod 600) with credentials that may encrypt and decrypt with it.\n\
    [keys.aws_kms]\nregion = \"eu-central-1\"\nkey = \"alias/cardvault\"\ncredentials = \"keys/aws.credentials\"\n\n";

fn configuration(args: &InitArgs) -> String {
    let provider = match args.provider {
        RootProvider::File => "provider = \"file\"\nroot_key = \"keys/root.key\"\n",
        RootProvider::Shares => "provider = \"shares\"\n",
        RootProvider::Pkcs11 => "provider = \"pkcs11\"\n",
        RootProvider::Transit => "provider = \"transit\"\n",
        RootProvider::AwsKms => "provider = \"aws-kms\"\n",
    };
    let section = match args.provider {
        RootProvider::File | RootProvider::Shares => "",
        RootProvider::Pkcs11 => PKCS11,
        RootProvider::Transit => TRANSIT,
        RootProvider::AwsKms => AWS_KMS,
    };
    format!(
        "# Made by `cardvault init`; deploy/cardvault.example.toml shows every setting there is.\n\
         environment = \"development\"\ninstallation = \"{}\"\nnode = \"node1\"\n\n\
         [listen]\napi = \"{}\"\nmetrics = \"{}\"\ncertificate = \"tls/server.pem\"\nkey = \"tls/server.key\"\n\n\
         [store]\ndirectory = \"data\"\n\n\
         [keys]\n{provider}key_store = \"keys/keystore.json\"\n\
         inventory = \"keys/inventory.toml\"\n\n{section}\
         [admin]\nsocket = \"admin.sock\"\n\n\
         [destination.sandbox]\nconnector = \"sandbox\"\nmode = \"test\"\nendpoint = \"https://{}\"\n\
         trust = \"tls/ca.pem\"\ncredentials.secret_key = \"credentials/sandbox_secret_key\"\n\n\
         # The sandbox speaks Stripe's wire form as well.\n\
         [destination.stripe_sandbox]\nconnector = \"stripe\"\nmode = \"test\"\nendpoint = \"https://{}\"\n\
         trust = \"tls/ca.pem\"\ncredentials.secret_key = \"credentials/sandbox_secret_key\"\n\n\
         # And takes requests of a caller's own (`POST /v1/forwards`).\n\
         [forward.sandbox_forward]\nmode = \"test\"\nendpoint = \"https://{}\"\ntrust = \"tls/ca.pem\"\n\
         [forward.sandbox_forward.takes]\nmethods = [\"POST\", \"GET\"]\n\
         paths = [\"/v1/payments\", \"/v1/payments/*\"]\nquery = [\"reference\"]\nheaders = [\"idempotency-key\"]\n\
         leaves = [\"reference\", \"operation\", \"amount\", \"currency\", \"invoice\", \"description\"]\n\
         card_leaves = [\"card.number\", \"card.exp_month\", \"card.exp_year\", \"billing.zip\"]\n\
         numbers = [\"card.exp_month\", \"card.exp_year\"]\n\
         exempt = [\"network_transaction_id\", \"data.*.network_transaction_id\"]\n\
         [forward.sandbox_forward.credentials.secret_key]\nfile = \"credentials/sandbox_secret_key\"\n\
         header = \"authorization\"\nprefix = \"Bearer \"\n",
        args.installation, args.api, args.metrics, args.sandbox, args.sandbox, args.sandbox
    )
}

/// What the names of development certificates begin with: production takes none of them.
pub(super) const DEVELOPMENT_NAME: &str = "cardvault development";

/// A certificate authority for this machine only, and certificates for vault and sandbox.
pub(super) fn make_certificates(directory: &Path) -> Result<(), String> {
    let failed = |_| "certificates could not be made".to_owned();
    let mut params = CertificateParams::new(Vec::new()).map_err(failed)?;
    params.distinguished_name.push(DnType::CommonName, format!("{DEVELOPMENT_NAME} CA"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params);
    let authority =
        CertifiedIssuer::self_signed(params, KeyPair::generate().map_err(failed)?).map_err(failed)?;
    write_new(&directory.join("ca.pem"), &authority.pem(), 0o644)?;
    for name in ["server", "sandbox"] {
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
        let mut params = CertificateParams::new(names).map_err(failed)?;
        params.distinguished_name.push(DnType::CommonName, format!("{DEVELOPMENT_NAME} {name}"));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        set_validity(&mut params);
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &authority).map_err(failed)?;
        write_new(&directory.join(format!("{name}.pem")), &certificate.pem(), 0o644)?;
        write_secret(&directory.join(format!("{name}.key")), &key.serialize_pem())?;
    }
    Ok(())
}

fn set_validity(params: &mut CertificateParams) {
    use crate::clock::{Clock, SystemClock};
    let now = SystemClock.now();
    let day = |offset: i64| {
        let date = jiff::Timestamp::from_second(now.seconds() + offset * 86_400)
            .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
            .to_zoned(jiff::tz::TimeZone::UTC)
            .date();
        let part = |value: i8| u8::try_from(value).unwrap_or(1);
        rcgen::date_time_ymd(i32::from(date.year()), part(date.month()), part(date.day()))
    };
    params.not_before = day(-1);
    params.not_after = day(CERTIFICATE_DAYS);
}

fn make_word() -> Result<String, String> {
    let bytes = random::make_bytes::<20>().map_err(|error| error.to_string())?;
    Ok(data_encoding::BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
}

fn make_directory(path: &Path, mode: u32) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{} cannot be made: {}", path.display(), error.kind());
    if !path.exists() {
        std::fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(failed)?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed)
}

fn write_secret(path: &Path, text: &str) -> Result<(), String> {
    write_new(path, text, 0o600)
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), String> {
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| format!("{} cannot be written: {}", path.display(), error.kind()))
}
