//! The `cardvault` command: subcommands and wiring only.

fn main() {}
