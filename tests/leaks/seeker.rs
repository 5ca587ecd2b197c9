//! Searches bytes, files and the memory of processes for all that was sent.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};

use cardvault::tools::search::Search;

use crate::common::Vault;
use crate::{CODE, Canaries, DESTINATION, TENANT, TRUST, ZIP};

/// What was found where, by case and form; the key of the map is the place.
pub(crate) type Found = BTreeMap<String, Vec<String>>;

pub(crate) struct Seeker {
    pub(crate) search: Search,
    pub(crate) cases: Vec<String>,
    words: Vec<(&'static str, Vec<u8>)>,
}

impl Seeker {
    pub(crate) fn new(canaries: &Canaries) -> Self {
        let mut words = vec![
            ("code in JSON", format!("\"cvc\":\"{CODE}\"").into_bytes()),
            ("code in a form", format!("[cvc]={CODE}").into_bytes()),
            ("code in an encoded form", format!("%5Bcvc%5D={CODE}").into_bytes()),
            ("zip", ZIP.as_bytes().to_vec()),
        ];
        words.extend(canaries.halves.iter().map(|half| ("half of a number", half.clone().into_bytes())));
        Self { search: Search::new(&canaries.numbers), cases: canaries.cases.clone(), words }
    }

    pub(crate) fn seek(&self, place: &str, bytes: &[u8], found: &mut Found) {
        for hit in self.search.in_bytes(bytes).hits {
            let case = format!("{} ({}) at {:x}", self.cases[hit.number], hit.form, hit.offset);
            found.entry(place.to_owned()).or_default().push(case);
        }
        for (case, word) in &self.words {
            let mut from = 0;
            while let Some(at) = bytes[from..].iter().position(|byte| *byte == word[0]) {
                from += at;
                if bytes[from..].starts_with(word) {
                    found.entry(place.to_owned()).or_default().push(format!("{case} at {from:x}"));
                }
                from += 1;
            }
        }
    }

    fn seek_memory(&self, role: &str, pid: u32, when: &str, found: &mut Found) {
        let known = match role {
            "forwarder" => DESTINATION,
            "courier" => TRUST,
            _ => TENANT,
        };
        let mut is_known = false;
        for (name, bytes) in memory_of(pid) {
            is_known |= bytes.windows(known.len()).any(|part| part == known.as_bytes());
            self.seek(&format!("memory of the {role} with {when} {name}"), &bytes, found);
        }
        assert!(is_known, "the memory of the {role} was not read");
    }
}

/// All memory of a process that can be written, so that something could have been left there, a piece at a time.
pub(crate) fn memory_of(pid: u32) -> impl Iterator<Item = (String, Vec<u8>)> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let writable = |line: &&str| line.split(' ').nth(1).is_some_and(|rights| rights.starts_with("rw"));
    let pieces: Vec<(u64, u64, String)> = maps
        .lines()
        .filter(writable)
        .map(|line| {
            let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let [start, end] = [start, end].map(|n| u64::from_str_radix(n, 16).unwrap());
            (start, end, line.split_whitespace().nth(5).unwrap_or("").to_owned())
        })
        .collect();
    pieces.into_iter().filter_map(move |(start, end, name)| {
        let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
        memory.seek(SeekFrom::Start(start)).unwrap();
        memory.read_exact(&mut bytes).ok().map(|()| (name, bytes))
    })
}

/// All memory of all processes of these roles, once: what is found is there.
pub(crate) fn seek_processes(vault: &Vault, seeker: &Seeker, roles: &[&str], when: &str, found: &mut Found) {
    if !rustix::process::geteuid().is_root() {
        writeln!(std::io::stderr(), "skipped: only root may read the memory of the processes").unwrap();
        return;
    }
    let processes = vault.processes();
    assert!(roles.iter().all(|role| processes.iter().any(|(running, _)| running == role)));
    for (role, pid) in processes.into_iter().filter(|(role, _)| roles.contains(&role.as_str())) {
        seeker.seek_memory(&role, pid, when, found);
    }
}
