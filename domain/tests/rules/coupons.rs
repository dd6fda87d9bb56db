//! Templates, claims and the states of a coupon, as scenarios. The language is that of [`crate::script`].

use scrip_domain::coupon::{CouponStatus, MAX_STOCK};
use scrip_domain::{Answer, Timestamp};

use crate::generate::HOUR;

macro_rules! scenarios {
    ($($(#[$doc:meta])* $name:ident: $text:literal)*) => {
        $($(#[$doc])* #[test] fn $name() { crate::script::run($text); })*
        /// Every scenario of this file.
        pub const ALL: &[&str] = &[$($text),*];
    };
}
pub(crate) use scenarios;

scenarios! {
    /// The template fails every check at once; each is lifted in turn, so each wins over all those behind it.
    claim_checks_run_in_their_fixed_order: "
        @0  T = template stock 1 valid 0 6                                    => version=1
            claim T m1                                                        => AVAILABLE
            update T version 1 valid 0 6 opens 10 closes 5 levels GOLD        => version=2
            disable T                                                         => version=3 enabled=false
        @7  claim X m1                                                        => COUPON_TEMPLATE_NOT_FOUND
            B: claim T m1                                                     => COUPON_TEMPLATE_NOT_FOUND
            claim T m1                                                        => COUPON_TEMPLATE_DISABLED
            enable T                                                          => version=4 enabled=true
            claim T m1                                                        => COUPON_CLAIM_NOT_STARTED starts_at=@10
            update T version 4 valid 0 6 closes 5 levels GOLD                 => version=5
            claim T m1                                                        => COUPON_CLAIM_ENDED ended_at=@5 version=5
            update T version 5 valid 0 6 levels GOLD                          => version=6
            claim T m1                                                        => COUPON_VALIDITY_ENDED ended_at=@6
            update T version 6 valid 0 9 levels GOLD                          => version=7
            claim T m1                                                        => COUPON_MEMBER_LEVEL
            claim T m1 level GOLD                                             => COUPON_LIMIT_REACHED limit=1 version=7
            claim T m2 level GOLD                                             => COUPON_SOLD_OUT total=1 version=7
            stock T 1                                                         => total=2 remaining=1 version=8
            claim T m2 level GOLD                                             => AVAILABLE sequence=1 version=8
            show template T                                                   => total=2 remaining=0 claimed=2 used=0
    "

    the_issue_window_is_half_open: "
        @0   T = template limit 9 opens 5 closes 8   => remaining=none
        @5-  claim T m1                              => COUPON_CLAIM_NOT_STARTED starts_at=@5
        @5   claim T m1                              => AVAILABLE sequence=1
        @8-  claim T m1                              => AVAILABLE sequence=2
        @8   claim T m1                              => COUPON_CLAIM_ENDED ended_at=@8
    "

    a_fixed_validity_ends_the_claims_at_its_very_end: "
        @0   T = template limit 9 valid 5 8   => ok
             claim T m1                       => AVAILABLE from=5 until=8
        @8-  claim T m1                       => AVAILABLE from=5 until=8
        @8   claim T m1                       => COUPON_VALIDITY_ENDED ended_at=@8
    "

    a_relative_validity_counts_hours_too_and_may_begin_later: "
        @0    T = template hours 5 after 2                   => ok
              U = template days 1 hours 1 after 1            => ok
              c = claim T m1                                 => from=2 until=7
              d = claim U m1                                 => from=1 until=26
              lock c o1                                      => COUPON_NOT_YET_VALID valid_from=@2
        @2    lock c o1                                      => LOCKED
              unlock c o1                                    => AVAILABLE
        @7    lock c o1                                      => COUPON_EXPIRED valid_until=@7
    "

    a_relative_validity_begins_with_the_claim: "
        @0  T = template days 2 limit 2        => ok
        @3  claim T m1                         => AVAILABLE from=3 until=51
        # Beyond the last instant that has a form there is no validity.
            update T version 1 days 4000000000 limit 2   => version=2
            claim T m1                         => AVAILABLE until=last version=2
    "

    a_member_needs_one_of_the_levels_exactly: "
        @0  T = template limit 9 levels GOLD,SILVER   => ok
            claim T m1                                => COUPON_MEMBER_LEVEL
            claim T m1 level BRONZE                   => COUPON_MEMBER_LEVEL
            claim T m1 level GOL                      => COUPON_MEMBER_LEVEL
            claim T m1 level SILVER                   => AVAILABLE
            claim T m1 level GOLD                     => AVAILABLE
            O = template                              => ok
            claim O m1 level ANY                      => AVAILABLE
    "

    a_limit_counts_every_coupon_of_the_member_whatever_became_of_it: "
        @0   T = template limit 2 days 1   => ok
             a = claim T m1                => sequence=1
             revoke a                      => REVOKED
             b = claim T m1                => sequence=2
             claim T m1                    => COUPON_LIMIT_REACHED limit=2
             claim T m2                    => sequence=1
        @2d  settle b                      => coupons=1 locks=0
             claim T m1                    => COUPON_LIMIT_REACHED limit=2
             update T version 1 limit 3    => version=2
             claim T m1                    => sequence=3
             update T version 2 limit 1    => version=3
             claim T m1                    => COUPON_LIMIT_REACHED limit=1 version=3
    "

    unlimited_stock_never_sells_out: "
        @0  T = template             => total=none remaining=none
            claim T m1               => AVAILABLE
            claim T m2               => AVAILABLE
            stock T 5                => COUPON_STOCK_UNLIMITED
            show template T          => total=none remaining=none claimed=2 version=1
    "

    stock_may_grow_and_may_shrink_to_what_is_claimed: "
        @0  T = template stock 3          => total=3 remaining=3 version=1
            claim T m1                    => ok
            stock T -3                    => COUPON_STOCK_OUT_OF_RANGE remaining=2
        @1  stock T -2                    => total=1 remaining=0 version=2 updated_at=1 created_at=0
            claim T m2                    => COUPON_SOLD_OUT total=1
            stock T 999999999999          => total=1000000000000 remaining=999999999999
            stock T 1                     => COUPON_STOCK_OUT_OF_RANGE max_total=1000000000000
            stock T 9223372036854775807   => COUPON_STOCK_OUT_OF_RANGE
            stock T -9223372036854775808  => COUPON_STOCK_OUT_OF_RANGE
            stock X 1                     => COUPON_TEMPLATE_NOT_FOUND
            events T                      => coupon_template.created@0 coupon_template.stock_changed@1 coupon_template.stock_changed@1
    "

    an_edit_needs_the_version_it_was_made_from: "
        @0  T = template name Old           => version=1
        @1  update T version 2 name New     => COUPON_TEMPLATE_VERSION_STALE current=1
            update T version 1 name Old     => version=1 updated_at=0
            update T version 1 name New     => version=2 updated_at=1
            update T version 1 name New     => COUPON_TEMPLATE_VERSION_STALE current=2
            update X version 1 name New     => COUPON_TEMPLATE_NOT_FOUND
            B: update T version 2 name New  => COUPON_TEMPLATE_NOT_FOUND
            events T                        => coupon_template.created@0 coupon_template.updated@1
    "

    an_edit_never_changes_a_coupon_already_claimed: "
        @0    T = template days 2 limit 2        => ok
              c = claim T m1                     => until=48 version=1
              update T version 1 days 9 limit 2  => version=2
              show coupon c                      => until=48 version=1
              claim T m1                         => until=216 version=2
        @48   lock c o1                          => COUPON_EXPIRED valid_until=@48
    "

    enabling_and_disabling_twice_changes_nothing_more: "
        @0  T = template   => enabled=true version=1
            enable T       => enabled=true version=1
        @1  disable T      => enabled=false version=2 updated_at=1
        @2  disable T      => enabled=false version=2 updated_at=1
            enable T       => enabled=true version=3
            enable X       => COUPON_TEMPLATE_NOT_FOUND
            B: disable T   => COUPON_TEMPLATE_NOT_FOUND
            events T       => coupon_template.created@0 coupon_template.disabled@1 coupon_template.enabled@2
    "

    a_template_goes_only_while_nothing_was_claimed: "
        @0  T = template        => ok
            B: delete T         => COUPON_TEMPLATE_NOT_FOUND
            delete T            => ok
            delete T            => COUPON_TEMPLATE_NOT_FOUND
            claim T m1          => COUPON_TEMPLATE_NOT_FOUND
            enable T            => COUPON_TEMPLATE_NOT_FOUND
            stock T 1           => COUPON_TEMPLATE_NOT_FOUND
            update T version 1  => COUPON_TEMPLATE_NOT_FOUND
            events T            => coupon_template.created@0 coupon_template.deleted@0
            U = template        => ok
            c = claim U m1      => ok
            delete U            => COUPON_TEMPLATE_IN_USE claimed=1
            revoke c            => REVOKED
            delete U            => COUPON_TEMPLATE_IN_USE claimed=1
    "

    a_coupon_is_locked_and_used_by_its_order: "
        @0  T = template limit 2 days 2   => ok
            c = claim T m1                => AVAILABLE order=none
            use c o1                      => COUPON_NOT_LOCKED
            return c o1                   => COUPON_NOT_USED status=Available
        @1  lock c o1 until 9             => LOCKED order=o1 locked_until=9
            lock c o2                     => COUPON_LOCKED order_id=OrderId(\"o1\")
            use c o2                      => COUPON_ORDER_MISMATCH
            unlock c o2                   => COUPON_ORDER_MISMATCH
            return c o1                   => COUPON_NOT_USED status=Locked
            revoke c                      => COUPON_LOCKED
        @2  use c o1 discount 500         => USED order=o1 discount=500 used_at=2 locked_until=none
            show template T               => claimed=1 used=1
        @3  lock c o1                     => COUPON_USED order_id=OrderId(\"o1\")
            lock c o2                     => COUPON_USED order_id=OrderId(\"o1\")
            use c o2                      => COUPON_USED
            unlock c o1                   => COUPON_USED
            unlock c o2                   => COUPON_USED
            revoke c                      => COUPON_USED
            return c o2                   => COUPON_ORDER_MISMATCH
            return c o1                   => AVAILABLE order=none discount=none used_at=none until=48
            show template T               => claimed=1 used=0
            return c o1                   => COUPON_NOT_USED status=Available
            events c                      => coupon.claimed@0 coupon.locked@1 coupon.used@2 coupon.returned@3
    "

    a_step_repeated_for_its_order_answers_the_coupon_and_does_nothing: "
        @0  T = template                => ok
            c = claim T m1              => ok
            lock c o1 until 9           => LOCKED
        @1  lock c o1 until 5           => LOCKED locked_until=9
            lock c o1 until 1           => LOCKED locked_until=9
            use c o1 discount 500       => USED discount=500
        @2  use c o1 discount 900       => USED discount=500 used_at=1
            return c o1                 => AVAILABLE
            unlock c o1                 => AVAILABLE
            revoke c                    => REVOKED
            revoke c                    => REVOKED
            unlock c o1                 => REVOKED
            show template T             => used=0
            events c                    => coupon.claimed@0 coupon.locked@0 coupon.used@1 coupon.returned@2 coupon.revoked@2
    "

    a_lock_ends_at_its_deadline: "
        @0   T = template days 2   => ok
             c = claim T m1        => ok
        @1   lock c o1 until 1     => DEADLINE_PASSED
             lock c o1 until 0     => DEADLINE_PASSED
             lock c o1 until 5     => LOCKED
        @5-  use c o2              => COUPON_ORDER_MISMATCH
             lock c o2             => COUPON_LOCKED
        @5   use c o1              => COUPON_NOT_LOCKED
             show coupon c         => AVAILABLE order=none locked_until=none
        @6   lock c o2 until 9     => LOCKED order=o2
        @9-  use c o2              => USED
             events c              => coupon.claimed@0 coupon.locked@1 coupon.unlocked@5 coupon.locked@6 coupon.used@9-
    "

    a_lock_without_a_deadline_lasts_until_unlocked: "
        @0     T = template days 2   => ok
               c = claim T m1        => ok
               lock c o1             => LOCKED locked_until=none
        @99d   settle c              => coupons=0 locks=0
               use c o1              => USED
    "

    /// The validity ends at 24, the order's deadline is 30.
    a_lock_is_honoured_past_the_validity: "
        @0    T = template days 1 limit 9   => ok
              a = claim T m1                => until=24
              b = claim T m1                => until=24
              d = claim T m1                => until=24
        @23   lock a o1 until 30            => LOCKED
              lock b o2 until 30            => LOCKED
              lock d o3 until 30            => LOCKED
        @30-  use a o1                      => USED
              unlock b o2                   => EXPIRED order=none locked_until=none
        @40   use d o3                      => COUPON_EXPIRED valid_until=@24
              show coupon d                 => EXPIRED order=none
              events b                      => coupon.claimed@0 coupon.locked@23 coupon.unlocked@30- coupon.expired@30-
              events d                      => coupon.claimed@0 coupon.locked@23 coupon.unlocked@30 coupon.expired@30
    "

    a_coupon_expires_at_the_very_instant_its_validity_ends: "
        @0    T = template days 1 limit 9      => ok
              a = claim T m1                   => until=24
              b = claim T m1                   => ok
        @24-  lock a o1                        => LOCKED
              unlock a o1                      => AVAILABLE
        @24   lock a o1                        => COUPON_EXPIRED valid_until=@24
              use a o1                         => COUPON_EXPIRED
              revoke a                         => COUPON_EXPIRED
              return a o1                      => COUPON_NOT_USED status=Expired
              unlock a o1                      => EXPIRED
        # Written late, dated when it was due.
        @30   settle b                         => coupons=1 locks=0
              settle b                         => coupons=0 locks=0
              events b                         => coupon.claimed@0 coupon.expired@24
    "

    a_coupon_can_be_locked_from_the_start_of_its_validity: "
        @0   T = template valid 5 8      => ok
             c = claim T m1              => AVAILABLE from=5
        @5-  lock c o1                   => COUPON_NOT_YET_VALID valid_from=@5
             lock c o1 until 1           => COUPON_NOT_YET_VALID
             use c o1                    => COUPON_NOT_LOCKED
        @5   lock c o1                   => LOCKED
             use c o1                    => USED
    "

    a_revoked_coupon_stays_revoked: "
        @0    T = template days 1   => ok
              c = claim T m1        => ok
              revoke c              => REVOKED
              lock c o1             => COUPON_REVOKED
              use c o1              => COUPON_REVOKED
              return c o1           => COUPON_NOT_USED status=Revoked
        @99   settle c              => coupons=0 locks=0
              revoke c              => REVOKED
              events c              => coupon.claimed@0 coupon.revoked@0
    "

    a_refund_within_the_validity_gives_the_coupon_back_as_it_was: "
        @0    T = template days 1 extend 7   => ok
              c = claim T m1                 => ok
              lock c o1                      => LOCKED
              use c o1                       => USED
              disable T                      => ok
        @24-  return c o1                    => AVAILABLE until=24
        @24   lock c o2                      => COUPON_EXPIRED
    "

    a_refund_after_the_validity_extends_it_while_the_template_is_enabled: "
        @0    T = template days 1 extend 7   => ok
              c = claim T m1                 => until=24
              lock c o1                      => LOCKED
              use c o1                       => USED
        @24   return c o1                    => AVAILABLE until=192
        @192- lock c o2                      => LOCKED
              use c o2                       => USED
        # And once more from there.
        @200  return c o2                    => AVAILABLE until=368
              show template T                => used=0
              events c                       => coupon.claimed@0 coupon.locked@0 coupon.used@0 coupon.returned@24 coupon.locked@192- coupon.used@192- coupon.returned@200
    "

    a_refund_after_the_validity_is_a_case_for_an_operator_otherwise: "
        @0    T = template days 1 extend 7 limit 2  => ok
              O = template days 1 extend 0          => ok
              c = claim T m1                        => until=24
              d = claim O m1                        => until=24
              lock c o1                             => LOCKED
              lock d o1                             => LOCKED
              use c o1                              => USED
              use d o1                              => USED
              disable T                             => ok
        @24   return c o1                           => EXPIRED order=none until=24 used_at=none
              return d o1                           => EXPIRED order=none until=24
              show template T                       => used=0
              return c o1                           => COUPON_NOT_USED status=Expired
              events c                              => coupon.claimed@0 coupon.locked@0 coupon.used@0 coupon.compensation_needed@24
    "

    /// So is whether coupons return at all.
    a_coupon_whose_template_keeps_it_does_not_return: "
        @0    T = template days 1 extend 7 kept     => ok
              c = claim T m1                        => until=24
              lock c o1                             => LOCKED
              return c o1                           => COUPON_NOT_USED
              use c o1                              => USED
              return c o2                           => COUPON_ORDER_MISMATCH
              return c o1                           => COUPON_NOT_RETURNABLE
        @48   return c o1                           => COUPON_NOT_RETURNABLE
              show template T                       => used=1
              events c                              => coupon.claimed@0 coupon.locked@0 coupon.used@0
              update T version 1 days 1 extend 7    => ok
              return c o1                           => AVAILABLE until=216
    "

    /// The extension is the current definition's: it is the operator's offer at the time of the refund.
    the_extension_is_read_when_the_coupon_returns: "
        @0    T = template days 1 extend 7          => ok
              c = claim T m1                        => ok
              lock c o1                             => LOCKED
              use c o1                              => USED
              update T version 1 days 1 extend 2    => ok
        @24   return c o1                           => AVAILABLE until=72
    "

    another_tenants_coupon_is_unknown: "
        @0  T = template     => ok
            c = claim T m1   => ok
            B: lock c o1     => COUPON_NOT_FOUND
            B: use c o1      => COUPON_NOT_FOUND
            B: unlock c o1   => COUPON_NOT_FOUND
            B: return c o1   => COUPON_NOT_FOUND
            B: revoke c      => COUPON_NOT_FOUND
            B: settle c      => COUPON_NOT_FOUND
            lock x o1        => COUPON_NOT_FOUND
            show coupon c    => AVAILABLE
    "

    a_replay_gives_the_first_answer_even_after_sold_out_and_end: "
        @0   T = template stock 1 closes 5   => ok
             c = claim T m1 key k1           => AVAILABLE sequence=1
             claim T m1 key k2               => COUPON_LIMIT_REACHED
             claim T m2 key k3               => COUPON_SOLD_OUT
             lock c o1 key k4                => LOCKED
             use c o1 key k5                 => USED
        @9   claim T m1 key k1               => replayed AVAILABLE sequence=1
             lock c o1 key k4                => replayed LOCKED
             claim T m3                      => COUPON_CLAIM_ENDED
             disable T                       => ok
             claim T m1 key k1               => replayed AVAILABLE
             claim T m1 key k1 other         => IDEMPOTENCY_KEY_REUSED
             show template T                 => claimed=1 used=1 remaining=0
             show coupon c                   => USED
        # A key belongs to its tenant.
             B: S = template key k1          => version=1
             B: claim S m1 key k4            => AVAILABLE
             B: S2 = template key k1         => replayed version=1
    "

    a_refusal_is_not_recorded: "
        @0   T = template stock 1 opens 5       => ok
             claim T m1 key k1                  => COUPON_CLAIM_NOT_STARTED
        @5   claim T m1 key k1 other            => AVAILABLE
             claim T m1 key k1                  => IDEMPOTENCY_KEY_REUSED
             claim T m2 key k2                  => COUPON_SOLD_OUT
             stock T 1                          => ok
             claim T m2 key k2                  => AVAILABLE
             claim T m2 key k2                  => replayed AVAILABLE
             show template T                    => claimed=2
    "

    keys_belong_to_their_tenant: "
        @0  U: api-key        => TENANT_NOT_FOUND
            k = api-key       => revoked_at=none
            B: revoke-key k   => API_KEY_NOT_FOUND
            revoke-key x      => API_KEY_NOT_FOUND
        @1  revoke-key k      => revoked_at=1
        @2  revoke-key k      => revoked_at=1
    "
}

#[test]
fn a_hundred_members_and_a_stock_of_ten_make_ten_coupons() {
    let claims: String = (0..100)
        .map(|n| format!("claim T m{n} => {}\n", if n < 10 { "AVAILABLE" } else { "COUPON_SOLD_OUT total=10" }))
        .collect();
    crate::script::run(&format!(
        "@0 T = template stock 10 => ok\n{claims}\nshow template T => total=10 remaining=0 claimed=10"
    ));
}

#[test]
fn a_thousand_claims_of_one_member_make_as_many_coupons_as_the_limit() {
    let claims: String = (0..1000)
        .map(|n| format!("claim T m1 => {}\n", if n < 3 { "AVAILABLE" } else { "COUPON_LIMIT_REACHED limit=3" }))
        .collect();
    crate::script::run(&format!("@0 T = template limit 3 => ok\n{claims}\nshow template T => claimed=3"));
}

#[test]
fn the_largest_stock_is_the_documented_one() {
    assert_eq!(MAX_STOCK, 1_000_000_000_000);
}

/// What a reader sees without a sweep is what the sweep would write.
#[test]
fn the_status_at_an_instant_is_the_one_that_settling_writes() {
    let harness = crate::script::run(
        "@0   T = template days 1 limit 9   => ok
              a = claim T m1                => ok
              b = claim T m1                => ok
              lock b o1 until 10            => LOCKED
              c = claim T m1                => ok
              lock c o1 until 30            => LOCKED
              d = claim T m1                => ok
              lock d o1                     => LOCKED
              e = claim T m1                => ok
              lock e o1                     => LOCKED
              use e o1                      => USED
              f = claim T m1                => ok
              revoke f                      => REVOKED",
    );
    for ((tenant, id), coupon) in &harness.rows.coupons {
        for hour in [0, 9, 10, 23, 24, 29, 30, 99] {
            for at in [Timestamp(hour * HOUR - 1), Timestamp(hour * HOUR)] {
                let envelope = scrip_domain::Envelope {
                    tenant: *tenant,
                    actor: None,
                    command: scrip_domain::Command::SettleCoupon(*id),
                    idempotency: None,
                    at,
                    now: at,
                    seed: scrip_domain::IdSeed { unix_ms: 0, random: at.0 as u128 },
                };
                let mut later = harness.clone();
                let answers = later.execute(&[envelope]);
                assert!(matches!(answers[0], Answer::Accepted { .. }));
                assert_eq!(later.rows.coupons[&(*tenant, *id)].status, coupon.status_at(at), "{coupon:?} at {at:?}");
            }
        }
    }
    let all: Vec<CouponStatus> = harness.rows.coupons.values().map(|coupon| coupon.status).collect();
    assert_eq!(all.iter().filter(|status| **status == CouponStatus::Locked).count(), 3);
}
