//! An invoice run under SIGKILL of random roles: it goes on by itself, no line is charged twice, none is forgotten. The command that
//! watches it sees all of it through.
//!
//! ```text
//! CARDVAULT_CRASH_LINES=5000 CARDVAULT_CRASH_KILLS=20 cargo test --test crash -- --nocapture --exact \
//!     runs::a_run_survives_the_death_of_any_process
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cardvault::card::tenant::Mode;
use serde_json::{Value, json};

use crate::common::numbers::complete;
use crate::common::{CARDVAULT, Vault, card, order, store, text};

const LINES: usize = 400;
const KILLS: usize = 6;
const CARDS: usize = 24;
const OVER_MAX: Duration = Duration::from_secs(240);
const ROLES: [&str; 4] = ["edge", "keeper", "forwarder", "supervisor"];
/// Approve, decline, answer slowly, drop after and before charging, answer 500.
const SUFFIXES: [u32; 12] = [0, 0, 0, 0, 0, 0, 902, 970, 971, 972, 973, 0];

#[expect(clippy::disallowed_methods, reason = "the size of a test is no setting of the product")]
fn asked(name: &str, usual: usize) -> usize {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap())
}

/// The file of lines: half of them of the merchant, under an agreement.
async fn write_lines(vault: &Vault, credential: &str, lines: usize) -> std::path::PathBuf {
    let client = vault.client(credential);
    let mut tokens = Vec::new();
    for (at, suffix) in SUFFIXES.into_iter().cycle().take(CARDS).enumerate() {
        let number = complete(&format!("468738{at:06}{suffix:03}"));
        let stored = store(&client, &format!("t-{at}"), &card(&number, "c-1")).await;
        let token = stored["id"].as_str().unwrap().to_owned();
        let consent = json!({"type": "recurring", "consent": {"by": "c-1", "at": "2026-01-01T00:00:00Z"}});
        let path = format!("/v1/tokens/{token}/agreements");
        let made = client.post(&path, &format!("a-{at}"), &consent).await.unwrap();
        assert_eq!(made.status, 201, "{}", text(&made));
        tokens.push(token);
    }
    let mut file = "invoice,token,amount,currency,initiator,destination\n".to_owned();
    for n in 0..lines {
        let by = if n % 2 == 0 { "customer" } else { "" };
        writeln!(file, "inv-{n},{},{},USD,{by},sandbox", tokens[n % CARDS], 100 + n).unwrap();
    }
    let path = vault.beside("invoices.csv");
    std::fs::write(&path, file).unwrap();
    path
}

/// What the sandbox sold for each invoice, without what was voided since.
fn sold(vault: &Vault) -> BTreeMap<String, Vec<i64>> {
    let ledger = std::fs::read_to_string(vault.beside("ledger.ndjson")).unwrap();
    let entries: Vec<Value> = ledger.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let is_voided = |sale: &Value| {
        entries.iter().any(|e| e["kind"] == "void" && e["status"] != "error" && e["parent"] == sale["id"])
    };
    let mut sold: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for sale in entries.iter().filter(|e| e["kind"] == "sale" && e["status"] == "approved" && !is_voided(e)) {
        let amount = sale["amount"].as_i64().unwrap();
        sold.entry(sale["invoice"].as_str().unwrap().to_owned()).or_default().push(amount);
    }
    sold
}

/// The command that hands the file in and sees the run through.
fn command(vault: &Vault, file: &Path, secret: &Path) -> Command {
    let mut command = Command::new(CARDVAULT);
    command.args(["invoices", "run", "--json", "--concurrency", "8", "--rate", "60"]).arg(file);
    command.arg("--url").arg(vault.api()).arg("--credential-file").arg(secret);
    command.arg("--ca").arg(vault.path("tls/ca.pem")).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// Kills processes, which and when is left to chance. The command that watches meanwhile ends when the vault listens elsewhere.
async fn kill_at_random(
    mut vault: Vault,
    watching: &mut Option<Child>,
    kills: usize,
) -> (Vault, Vec<&'static str>) {
    let mut killed = Vec::new();
    for _ in 0..kills {
        let chance = cardvault::random::make_bytes::<2>().unwrap();
        tokio::time::sleep(Duration::from_millis(300 + u64::from(chance[1]) * 3)).await;
        let role = ROLES[usize::from(chance[0]) % ROLES.len()];
        killed.push(role);
        let kill = move || {
            match role {
                "supervisor" => {
                    vault.kill();
                    vault.serve();
                }
                role => vault.kill_role(role),
            }
            vault
        };
        vault = tokio::task::spawn_blocking(kill).await.unwrap();
        if role == "supervisor"
            && let Some(mut child) = watching.take()
        {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
    (vault, killed)
}

/// Each line stands as the sandbox's ledger has it; gives how many are approved.
fn compare(results: &str, sold: &BTreeMap<String, Vec<i64>>, lines: usize) -> usize {
    let mut approved = 0;
    for (n, line) in results.lines().enumerate() {
        let line: Value = serde_json::from_str(line).unwrap();
        let invoice = format!("inv-{n}");
        assert_eq!(line["invoice"], json!(invoice));
        let is_approved = line["outcome"] == "approved";
        let expected = if is_approved { vec![100 + i64::try_from(n).unwrap()] } else { Vec::new() };
        assert_eq!(sold.get(&invoice).cloned().unwrap_or_default(), expected, "{line}");
        approved += usize::from(is_approved);
    }
    assert_eq!(results.lines().count(), lines);
    approved
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_survives_the_death_of_any_process() {
    let (lines, kills) = (asked("CARDVAULT_CRASH_LINES", LINES), asked("CARDVAULT_CRASH_KILLS", KILLS));
    let vault = Vault::start();
    vault.tenant("acme", Mode::Test);
    let scopes = ["tokens:create", "tokens:update", "charges:create", "charges:read"];
    let credential = vault.principal(order("invoicing", Some("acme"), &scopes));
    let file = write_lines(&vault, &credential, lines).await;
    let secret = vault.beside("credential");
    std::fs::write(&secret, &credential).unwrap();
    let began = Instant::now();
    let mut watching = Some(command(&vault, &file, &secret).spawn().unwrap());
    let (mut vault, killed) = kill_at_random(vault, &mut watching, kills).await;
    // The same command goes on where it was.
    let mut again = command(&vault, &file, &secret);
    let output = tokio::task::spawn_blocking(move || again.output().unwrap());
    let output = tokio::time::timeout(OVER_MAX, output).await.expect("the run does not end").unwrap();
    if let Some(mut child) = watching {
        assert_eq!(child.wait().unwrap().code(), Some(1), "some lines were declined");
    }
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "some lines were declined: {said}");
    let run: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!((&run["state"], &run["verdicts"]["accepted"]), (&json!("finished"), &json!(lines)), "{run}");
    assert_eq!(run["outcomes"].get("manual"), None, "{run}");

    let path = format!("/v1/invoice_runs/{}/results", run["id"].as_str().unwrap());
    let answer = vault.client(&credential).get(&path).await.unwrap();
    let approved = compare(std::str::from_utf8(&answer.body).unwrap(), &sold(&vault), lines);
    assert!(approved > lines / 2 && run["outcomes"]["approved"] == json!(approved), "{run}");
    vault.stop();
    let (code, said) = vault.verify();
    assert_eq!(code, 0, "{said}");
    eprintln!(
        "{lines} lines in {:.1} s through {kills} kills ({}): {}",
        began.elapsed().as_secs_f64(),
        killed.join(", "),
        run["outcomes"]
    );
}
