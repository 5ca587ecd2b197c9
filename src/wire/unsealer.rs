//! What supervisor and unsealer say to each other, and the one word from the unsealer to the keeper: the KEK.

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

/// What a wrapped KEK is bound to: it opens for this key of this environment and for no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KekBinding {
    /// The random id of the installation.
    pub environment: [u8; 16],
    /// The id of the KEK.
    pub key: u32,
}

impl KekBinding {
    /// `"cardvault/kek/v1" ‖ environment(16) ‖ key id(4)`: what is authenticated with the wrapped KEK.
    pub fn aad(&self) -> Vec<u8> {
        [b"cardvault/kek/v1".as_slice(), &self.environment, &self.key.to_be_bytes()].concat()
    }
}

/// A root provider, with what it has to be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProviderSettings {
    /// The file of root keys, which travels as a descriptor with [`ToUnsealer::Begin`].
    File,
    /// Shares that custodians give.
    Shares(SharesSettings),
    /// Shares that are made, of a new secret.
    NewShares(NewSharesSettings),
    /// A PKCS #11 token; its PIN travels as a descriptor.
    Pkcs11(Pkcs11Settings),
    /// A transit engine; its token and what it is trusted by travel as descriptors.
    Transit(TransitSettings),
    /// A key of AWS KMS; credentials and what it is trusted by travel as descriptors.
    AwsKms(AwsKmsSettings),
}

/// The transit engine of an OpenBao or HashiCorp Vault server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransitSettings {
    /// `https://host:port`.
    pub url: String,
    /// Where the engine is mounted.
    pub mount: String,
    /// The namespace that the mount is in.
    pub namespace: Option<String>,
    /// What the names of its keys begin with.
    pub prefix: String,
}

/// A symmetric key of AWS KMS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwsKmsSettings {
    /// The region.
    pub region: String,
    /// The key's id, ARN or alias.
    pub key: String,
    /// Another URL than the region's.
    pub endpoint: Option<String>,
}

/// A PKCS #11 token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pkcs11Settings {
    /// The path of the vendor's library.
    pub module: String,
    /// The token's label.
    pub token: String,
}

/// A file that a provider reads, handed over open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needed {
    /// The file of root keys.
    RootKey,
    /// The PIN of a token's user.
    Pin,
    /// The token for a transit engine.
    TransitToken,
    /// The certificates that a transit engine's server chains to.
    TransitTrust,
    /// Credentials for KMS.
    AwsCredentials,
    /// The certificates that KMS chains to.
    AwsTrust,
}

/// Of which ceremony the shares have to be, and how they are known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharesSettings {
    /// The ceremony's random id.
    pub ceremony: [u8; 16],
    /// How many are needed.
    pub threshold: u8,
    /// The key check value of the secret.
    pub secret_check: String,
    /// Places, and the key check value of the share of each.
    pub shares: Vec<(u8, String)>,
}

/// Whom a secret is shared among.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewSharesSettings {
    /// The ceremony's random id.
    pub ceremony: [u8; 16],
    /// How many shares are needed to give the secret back.
    pub threshold: u8,
    /// Whether nothing real is made.
    pub rehearsal: bool,
    /// The X25519 key of each custodian, in the order of places from 1.
    pub custodians: Vec<[u8; 32]>,
}

impl ProviderSettings {
    /// Its name in configuration, key store and log.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Shares(_) | Self::NewShares(_) => "shares",
            Self::Pkcs11(_) => "pkcs11",
            Self::Transit(_) => "transit",
            Self::AwsKms(_) => "aws-kms",
        }
    }

    /// The files that it reads, in the order in which they are handed over.
    pub const fn needed(&self) -> &'static [Needed] {
        match self {
            Self::File => &[Needed::RootKey],
            Self::Shares(_) | Self::NewShares(_) => &[],
            Self::Pkcs11(_) => &[Needed::Pin],
            Self::Transit(_) => &[Needed::TransitToken, Needed::TransitTrust],
            Self::AwsKms(_) => &[Needed::AwsCredentials, Needed::AwsTrust],
        }
    }
}

/// Where the KEK comes from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum KekSource {
    /// It is made.
    Make,
    /// A provider unwraps it.
    Unwrap {
        /// Which.
        provider: ProviderSettings,
        /// The wrapped KEK.
        #[serde(with = "serde_bytes")]
        wrapped: Vec<u8>,
        /// What it is bound to.
        binding: KekBinding,
        /// Its check value.
        check_value: String,
    },
    /// It stands in the file itself, as versions before had it: the one of this id, or the first of all.
    InFile {
        /// Its id.
        key: u32,
        /// Its version: the first has a line without an id.
        version: u32,
        /// Its check value, where there is a record of it.
        check_value: Option<String>,
    },
}

/// One task of an unsealer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UnsealOrder {
    /// Where the KEK comes from.
    pub from: KekSource,
    /// Who wraps it, and for which key.
    pub wrap: Option<(ProviderSettings, KekBinding)>,
}

impl UnsealOrder {
    /// The providers that it is about, the one that has the KEK first.
    pub fn providers(&self) -> impl Iterator<Item = &ProviderSettings> {
        let from = match &self.from {
            KekSource::Unwrap { provider, .. } => Some(provider),
            KekSource::InFile { .. } => Some(&ProviderSettings::File),
            KekSource::Make => None,
        };
        from.into_iter().chain(self.wrap.as_ref().map(|(provider, _)| provider))
    }

    /// The files that travel with it, each once, in this order.
    pub fn needed(&self) -> Vec<Needed> {
        let mut all = Vec::new();
        for needed in self.providers().flat_map(ProviderSettings::needed) {
            if !all.contains(needed) {
                all.push(*needed);
            }
        }
        all
    }

    /// The shares that have to be given before it can be carried out.
    pub fn shares(&self) -> Option<&SharesSettings> {
        self.providers()
            .filter_map(|provider| match provider {
                ProviderSettings::Shares(settings) => Some(settings),
                ProviderSettings::File
                | ProviderSettings::NewShares(_)
                | ProviderSettings::Pkcs11(_)
                | ProviderSettings::Transit(_)
                | ProviderSettings::AwsKms(_) => None,
            })
            .next()
    }
}

/// To the unsealer.
#[derive(Serialize, Deserialize)]
pub enum ToUnsealer {
    /// Obtain a KEK, and wrap it. Carries the files of [`UnsealOrder::needed`].
    Begin(Box<UnsealOrder>),
    /// A custodian's share, sealed to the key of [`FromUnsealer::Gathering`].
    Share {
        /// The custodian's place.
        place: u8,
        /// Encapsulated key, ciphertext.
        #[serde(with = "serde_bytes")]
        sealed: Vec<u8>,
    },
    /// Hand the KEK to the keeper: carries one end of a pair.
    Deliver,
    /// The wrapped KEK is durable: destroy, at its provider, what wrapped others, where the provider can.
    DestroyOthers,
    /// The KEK has moved, durably: destroy what wrapped it where it came from, where that provider can.
    DestroySource,
}

/// From the unsealer.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromUnsealer {
    /// Shares are needed first, each sealed to this X25519 key.
    Gathering {
        /// Made for this task alone.
        public: [u8; 32],
    },
    /// The share is one that is needed.
    ShareTaken,
    /// It is not; more may come.
    ShareRefused {
        /// Which, and what is wrong with it.
        sentence: String,
    },
    /// The KEK is here.
    Obtained(Obtained),
    /// The keeper's end of the pair has the KEK.
    Delivered,
    /// What wrapped other KEKs is gone, where the provider can destroy it.
    Destroyed,
    /// It could not be done.
    Failed {
        /// What kind of fault.
        fault: ProviderFault,
        /// What to do; it names no secret.
        sentence: String,
    },
}

/// What may be known of a KEK that an unsealer holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Obtained {
    /// Its check value.
    pub check_value: String,
    /// The KEK as it was wrapped, where that was asked for.
    #[serde(with = "serde_bytes")]
    pub wrapped: Vec<u8>,
    /// Shares, where some were made.
    pub issued: Option<Issued>,
}

/// Shares of a new secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// The key check value of the secret.
    pub secret_check: String,
    /// A share for each custodian.
    pub shares: Vec<IssuedShare>,
}

/// A share, which only its custodian can read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedShare {
    /// Its place, from 1.
    pub place: u8,
    /// Its key check value.
    pub check_value: String,
    /// Sealed to the custodian's X25519 key.
    #[serde(with = "serde_bytes")]
    pub sealed: Vec<u8>,
}

/// Why a provider gave no KEK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProviderFault {
    /// It cannot be reached or does not answer in time: trying again may help.
    Unavailable,
    /// It says no.
    Refused,
    /// A token says no to its PIN, and counts: the same PIN is not tried again.
    PinRefused,
    /// It has another root key, or the wrapped KEK is of another place.
    WrongKey,
    /// What it holds or gave is not what it has to be.
    Malformed,
    /// People have to do something first.
    Waiting,
    /// Two persons have to approve the configuration first; the provider was not asked.
    Unapproved,
}

impl ProviderFault {
    /// Its word in `/readyz`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unavailable => "root_provider_unavailable",
            Self::Refused | Self::PinRefused => "root_provider_refused",
            Self::WrongKey => "root_key_is_another",
            Self::Malformed => "root_key_malformed",
            Self::Waiting => "waiting_for_custodians",
            Self::Unapproved => "configuration_not_approved",
        }
    }
}

/// The KEK, from the unsealer to the keeper.
#[derive(Serialize, Deserialize)]
pub struct Kek {
    /// 32 bytes.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

impl Drop for Kek {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}
