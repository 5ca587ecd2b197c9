//! What must hold for every input, said of the library as others see it, against second opinions written here from the published
//! rules: ISO/IEC 7812 for numbers, RFC 6962 for the log's tree, RFC 8785 for its leaves, ISO 4217 and a processor's list for money.

#![cfg(test)]

#[path = "properties/leaves.rs"]
mod leaves;
#[path = "properties/money.rs"]
mod money;
#[path = "properties/numbers.rs"]
mod numbers;
#[path = "properties/times.rs"]
mod times;
#[path = "properties/tree.rs"]
mod tree;
