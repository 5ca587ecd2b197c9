//! The store's contract, stamped for each implementation: a second one adds a line to `every_store!`.

#[cfg(test)]
#[path = "store/cards.rs"]
mod cards;
#[cfg(test)]
#[path = "store/charges.rs"]
mod charges;
#[cfg(test)]
#[path = "store/customers.rs"]
mod customers;
#[cfg(test)]
#[path = "store/erasures.rs"]
mod erasures;
#[cfg(test)]
#[path = "store/forwards.rs"]
mod forwards;
#[cfg(test)]
#[path = "store/harness.rs"]
mod harness;
#[cfg(test)]
#[path = "store/invoice_runs.rs"]
mod invoice_runs;
#[cfg(test)]
#[path = "store/keys.rs"]
mod keys;
#[cfg(test)]
#[path = "store/log.rs"]
mod log;
#[cfg(test)]
#[path = "store/outlived.rs"]
mod outlived;
#[cfg(test)]
#[path = "store/records.rs"]
mod records;
#[cfg(test)]
#[path = "store/retention.rs"]
mod retention;
#[cfg(test)]
#[path = "store/sqlite.rs"]
mod sqlite;
#[cfg(test)]
#[path = "store/webhooks.rs"]
mod webhooks;

/// Stamps the contract's cases for every store. Each implementation is a name and a way to open a directory.
macro_rules! every_store {
    ($($topic:ident: [$($case:ident),* $(,)?]),* $(,)?) => {
        every_store!(@store sqlite, crate::harness::open_sqlite, $($topic: [$($case),*]),*);
    };
    (@store $store:ident, $open:path, $($topic:ident: [$($case:ident),*]),*) => {
        mod $store {
            $(mod $topic {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    crate::$topic::$case(crate::harness::Harness::new($open)).await;
                })*
            })*
        }
    };
}

#[cfg(test)]
mod contract {
    every_store!(
        cards: [
            a_card_reads_back_as_it_was_stored,
            a_tenant_sees_only_its_own_cards,
            a_customer_has_a_card_once_if_asked,
            many_at_once_get_one_token,
            versions_count_up_and_the_old_number_goes,
            who_changed_the_number_is_remembered,
            a_number_has_one_fingerprint_id_while_a_token_lives,
            an_update_moves_fingerprint_and_customer,
            an_erased_card_leaves_a_tombstone,
            a_hold_turns_an_erase_into_a_suspension,
            a_hold_that_is_released_leaves_the_card_as_it_was,
            cards_of_a_customer_come_newest_first,
            erased_bytes_leave_every_file,
        ],
        records: [
            each_record_comes_once_and_is_sealed_again_in_its_place,
            what_changed_meanwhile_is_not_brought_back,
            records_under_watched_keys_are_counted_or_refused,
            a_number_is_found_under_each_fingerprint_key_that_is_not_destroyed,
            what_was_counted_of_a_number_stays_while_it_may_be_found_in_two_places,
            an_older_key_store_is_told_from_a_newer_one,
        ],
        charges: [
            a_charge_counts_its_revisions,
            an_invoice_is_claimed_once,
            charges_are_found_by_every_filter,
            charges_that_need_the_card_are_found_until_they_are_given_back,
            the_charges_of_a_day_come_before_those_of_the_day_before,
            a_rare_status_is_found_behind_many_others,
            open_charges_are_those_that_wait,
            an_attempt_pins_its_version,
            an_erase_waits_for_the_last_pin,
            a_card_that_may_not_be_used_takes_no_charge,
            a_schedule_of_retries_holds_the_invoice_and_is_found_when_due,
            another_attempt_needs_a_card_that_may_be_used,
            declines_are_counted_by_number_and_account_and_go_with_it,
        ],
        webhooks: [
            each_status_of_a_charge_and_its_refunds_is_told_once,
            what_is_told_is_there_with_its_change_or_not_at_all,
            a_delivery_waits_is_settled_once_and_forgotten_in_its_time,
        ],
        customers: [
            a_customer_keeps_its_name_until_the_last_card_goes,
            a_card_that_moves_takes_the_name_of_its_new_customer,
            no_event_names_a_customer_by_the_keyed_hash,
            first_cards_at_once_agree_on_a_name,
        ],
        erasures: [
            an_erasure_names_each_key_that_may_have_sealed_the_card,
            an_erasure_that_waited_is_told_when_it_takes_place,
            that_erased_bytes_are_gone_is_told_as_well,
            what_becomes_of_a_key_is_kept,
        ],
        retention: [
            a_card_is_idle_since_the_latest_of_creation_use_and_agreement,
            a_card_that_a_retry_is_to_use_is_not_idle,
            what_is_idle_no_more_is_not_erased,
        ],
        outlived: [
            what_is_older_than_it_is_kept_is_found,
            an_invoice_that_was_charged_stays_taken,
        ],
        forwards: [
            a_forward_counts_its_revisions_and_is_the_tenants_own,
            a_card_that_may_not_be_used_takes_no_forward,
            the_answer_of_a_forward_goes_with_its_card,
        ],
        invoice_runs: [
            a_line_for_an_invoice_is_accepted_once,
            a_run_that_validates_claims_nothing,
            a_line_has_one_charge_whatever_comes_back,
            lines_that_are_not_charged_give_their_invoices_back,
            a_run_counts_its_revisions,
        ],
        keys: [
            a_key_is_claimed_once,
            a_refused_change_claims_nothing,
            a_reserved_answer_freezes_once,
            erasing_a_card_takes_its_body_macs,
            rows_of_people_and_tenants_are_kept,
            a_database_is_bound_to_one_installation_for_good,
        ],
        log: [
            events_are_numbered_without_gaps,
            refused_changes_leave_no_event,
            proofs_hold_against_the_head,
            appended_events_become_durable_by_themselves,
            checkpoints_are_kept,
            a_reopened_store_goes_on_where_it_was,
        ],
    );
}
