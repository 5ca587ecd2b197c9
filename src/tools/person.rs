//! `cardvault person`: the key of a person, and the register of those whose signatures count.

use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::administer::report;
use super::signing;
use super::terminal::say;
use crate::person::key::{PersonKey, PersonPublic};
use crate::person::scope::PersonScope;
use crate::supervisor::admin::AdminRequest;
use crate::supervisor::people::{PersonRequest, Registration};

/// Verbs on persons.
#[derive(Debug, Subcommand)]
pub enum PersonCommand {
    /// Make the key file of one person (mode 0600) and print its public half; run it as that person
    Keygen {
        /// The file to make
        file: PathBuf,
    },
    /// Print the public half of a key file
    Public {
        /// The key file
        file: PathBuf,
    },
    /// Register a person
    Add {
        /// Their name
        name: String,
        /// The public half of their key: cvper1…
        #[arg(value_parser = public)]
        public: PersonPublic,
        /// Their uid on this machine
        #[arg(long)]
        uid: Option<u32>,
        /// What they may ask for, such as keys:rotate; all if none is given; give it once for each
        #[arg(long = "scope")]
        scopes: Vec<String>,
    },
    /// Register the first two persons, each of whom signs for both: one asks, the other approves
    Found {
        /// Name and public key of the one, name and public key of the other
        #[arg(num_args = 4, required = true, value_names = ["NAME", "PUBLIC", "NAME", "PUBLIC"])]
        people: Vec<String>,
    },
    /// List all persons
    List,
    /// Have a person do nothing any more
    Disable {
        /// Their name or id
        person: String,
    },
    /// Give a person another key: the one before was lost, or others may know it
    Rekey {
        /// Their name or id
        person: String,
        /// The public half of the new key
        #[arg(value_parser = public)]
        public: PersonPublic,
    },
}

/// Carries out a verb on persons.
pub fn run(config: &Path, signer: Option<&Path>, command: PersonCommand) -> Result<(), String> {
    let request = match command {
        PersonCommand::Keygen { file } => {
            let key = PersonKey::make().map_err(|fault| fault.to_string())?;
            key.write(&file).map_err(|fault| fault.to_string())?;
            return tell_public(&key);
        }
        PersonCommand::Public { file } => {
            return tell_public(&PersonKey::read(&file).map_err(|fault| fault.to_string())?);
        }
        PersonCommand::Add { name, public, uid, scopes } => {
            let scopes = if scopes.is_empty() { PersonScope::names() } else { scopes };
            PersonRequest::Add(Registration { name, public, uid, scopes })
        }
        PersonCommand::Found { people } => {
            let new = |pair: &[String]| {
                let [name, key] = pair else { return Err("give two names, each with its key".to_owned()) };
                let (name, public) = (name.clone(), public(key)?);
                Ok(Registration { name, public, uid: None, scopes: PersonScope::names() })
            };
            PersonRequest::Found(people.chunks(2).map(new).collect::<Result<_, String>>()?)
        }
        PersonCommand::List => PersonRequest::List,
        PersonCommand::Disable { person } => PersonRequest::Disable(person),
        PersonCommand::Rekey { person, public } => PersonRequest::Rekey { person, public },
    };
    report(signing::ask(config, signer, vec![AdminRequest::Person(request)]))
}

fn tell_public(key: &PersonKey) -> Result<(), String> {
    say(&key.public().map_err(|fault| fault.to_string())?.to_string());
    Ok(())
}

fn public(text: &str) -> Result<PersonPublic, String> {
    PersonPublic::parse(text).map_err(|fault| fault.to_string())
}
