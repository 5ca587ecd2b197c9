//! cardvault keeps payment cards for a company that must not: sealed at rest, answered with a token, forwarded
//! to payment processors, shown to nobody.
//!
//! # Map
//! One binary; each role is a process of its own, and code lives in the folder of the process it runs in.
//! - [`supervisor`]: starts and watches the others; the only reader of configuration, credentials, key store.
//! - [`edge`]: TLS, HTTP, who may do what, charges, store, audit. Holds no keys, opens no card.
//! - [`keeper`]: keys and clear text. No network, no files.
//! - [`forwarder`]: TLS out to the loaded destinations only. No keys. In the same folder the courier: webhooks out, without cards.
//! - [`unsealer`]: short-lived: runs a root provider, hands the KEK to the keeper.
//! - [`tools`]: what a person runs beside the service: sandbox, demo, bench, connector and audit verbs.
//!
//! Shared by them, and free of secrets of their own:
//! - [`card`]: what anyone may know of a card: ids, brand, truncated PAN, expiry, the sealed layout.
//! - [`wire`]: the doors between roles: messages and framing.
//! - [`connector`]: the declarative language that says how to talk to one processor, and the connectors in it.
//! - [`forwarding`]: callers' own requests to a forward destination: what it declares, placeholders, bodies.
//! - [`person`]: the key of one person, and the requests that are signed with it.
//! - [`attest`]: what keeper and audit log both compute: tree hashes, signed notes, statements of openings.
//! - [`charging`]: how charges are tried again and where they go, as configured; [`webhooks`]: the same of webhooks;
//!   [`erasure`]: how soon what is erased is out of reach.
//! - [`config`], [`clock`], [`object`], [`random`], [`telemetry`]; `wiping`, which clears the read buffers of TLS and HTTP.
//!
//! # Words
//! The field's word, one word per thing: PAN; BIN; truncated PAN (first6 and last4); card verification code (CVC); token
//! (`tok_…`, ours); fingerprint (keyed hash of the whole PAN); DEK, KEK; agreement (stored-credential agreement); network
//! transaction id; connector (how to talk to one processor); destination (a connector with credentials and policy);
//! attempt (one try of one operation); checkpoint (the log's end, signed); opening (of a sealed PAN); tenant; principal;
//! scope; grant. Data is sealed and opened, keys are wrapped and unwrapped; `make_` is random, `derive_` deterministic.
//!
//! # What must never change
//! - Invariant: the edge names no key and no clear text, the keeper no network, file or SQL (`every_arrow_holds`).
//! - Invariant: a sealed field opens only in the place it was sealed for (`a_field_opens_only_where_it_belongs`).
//! - Invariant: envelopes of old versions open (`the_golden_envelope_opens`).
//! - Invariant: no key comes back, and no data key or KEK protects past its cryptoperiod (`no_key_ever_comes_back`, `a_key_seals_nothing_after_its_cryptoperiod`).
//! - Invariant: a number stays one card while its fingerprint key changes (`a_number_stays_one_card_while_its_fingerprint_key_changes`).
//! - Invariant: fewer custodians than it takes open nothing (`three_of_five_custodians_open_the_vault_and_nobody_else`).
//! - Invariant: without its KEK a vault serves nothing (`without_its_kek_a_vault_says_why_and_serves_nothing`).
//! - Invariant: no card is lost while keys change, whatever dies (`whatever_dies_no_card_is_lost_while_keys_change`).
//! - Invariant: a change and its events are committed together or not at all (`refused_changes_leave_no_event`).
//! - Invariant: an opening that a statement counts has one event (`an_opening_that_a_statement_counts_has_exactly_one_event`).
//! - Invariant: no request is sent twice on the quiet (`no_request_is_sent_twice`).
//! - Invariant: no forward is sent twice (`a_forward_that_was_being_sent_is_unknown_and_never_sent_again`).
//! - Invariant: a value never changes the shape of a forward (`no_value_changes_the_shape_of_a_body`).
//! - Invariant: an invoice and period are charged once (`an_invoice_is_claimed_once`).
//! - Invariant: a retry or failover that was begun is never begun again (`the_edge_dies_while_retries_are_made`,
//!   `the_edge_dies_while_routes_move_on`).
//! - Invariant: what a network forbids leaves for no merchant (`what_the_network_forbids_is_not_sent_for_a_merchant`).
//! - Invariant: a line of a run has one charge, whatever crashes (`a_line_has_one_charge_whatever_comes_back`).
//! - Invariant: a number that a processor answers with goes to the keeper alone (`a_new_number_is_for_the_keeper_and_in_no_outcome`).
//! - Invariant: a webhook decides by what is signed only (`what_decides_must_be_signed`), and changes nothing that it does not prove
//!   or that is settled (`only_what_the_processor_surely_said_changes_anything`).
//! - Invariant: test and live numbers never meet (`test_and_live_numbers_never_meet`).
//! - Invariant: nothing quotes what a caller sent (`no_body_is_ever_quoted`, `an_error_never_quotes_the_file`).
//! - Invariant: what webhook endpoints are told is committed with its change, and has one id (`whatever_is_killed_each_event_arrives_with_one_id`).
//! - Invariant: webhooks go to the operator's hosts only (`a_host_that_is_not_on_the_list_is_not_dialed`).
//! - Invariant: erased bytes leave every file (`erased_bytes_leave_every_file`).

pub mod attest;
pub mod card;
pub mod charging;
pub mod clock;
pub mod config;
pub mod connector;
pub mod edge;
pub mod erasure;
pub mod forwarder;
pub mod forwarding;
pub mod keeper;
pub mod object;
pub mod person;
pub mod random;
pub mod roots;
pub mod supervisor;
pub mod telemetry;
pub mod tools;
pub mod unsealer;
pub mod webhooks;
mod wiping;
pub mod wire;
