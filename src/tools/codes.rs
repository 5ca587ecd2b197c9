//! `cardvault codes`: what each code of a decline means for the next try, made from the dated data that the vault itself goes by.

use std::process::ExitCode;

use crate::connector::codes::{self, CodeLine};
use crate::tools::terminal::{complain, say};

/// Which codes to print, and how.
#[derive(clap::Args)]
pub struct Args {
    /// Only this list: visa, mastercard, mastercard_advice, iso8583, or a connector's name
    #[arg(long)]
    list: Option<String>,
    /// One JSON object a line, with date and source
    #[arg(long)]
    json: bool,
}

/// Prints the table.
pub fn run(args: &Args) -> ExitCode {
    let mut lines = codes::all();
    if let Some(list) = &args.list {
        let mut names: Vec<String> = lines.iter().map(|line| line.list.clone()).collect();
        names.dedup();
        lines.retain(|line| line.list == *list);
        if lines.is_empty() {
            complain(&format!("cardvault: there is no such list; there are {}", names.join(", ")));
            return ExitCode::FAILURE;
        }
    }
    if args.json {
        lines.iter().filter_map(|line| serde_json::to_string(line).ok()).for_each(|line| say(&line));
    } else {
        say(&table(&lines));
    }
    ExitCode::SUCCESS
}

fn table(lines: &[CodeLine]) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["list", "code", "means", "try again", "as of"]);
    for line in lines {
        table.add_row([&line.list, &line.code, &line.class, &line.retry, &line.date]);
    }
    table.to_string()
}
