//! Daily caps, budgets, archived templates, transfers and extensions, as scenarios. The language is that of
//! [`crate::script`]; days are those of UTC, a coupon takes 500 off.

use crate::coupons::scenarios;

scenarios! {
    /// Every limit is reached at once; each is lifted in turn, so each wins over all those behind it.
    limits_are_checked_member_first_then_day_then_budget_then_stock: "
        @0  T = template stock 2 cap 2 budget 1000        => ok
            claim T m1                                    => AVAILABLE
            claim T m2                                    => AVAILABLE
            claim T m1                                    => COUPON_LIMIT_REACHED
            claim T m3                                    => COUPON_CAP_REACHED period=Day cap=2 ends_at=@24
            update T version 1 cap 3 budget 1000          => version=2
            claim T m3                                    => COUPON_BUDGET_EXHAUSTED budget=1000 version=2
            update T version 2 cap 3 budget 1500          => version=3
            claim T m3                                    => COUPON_SOLD_OUT total=2
            stock T 1                                     => remaining=1
            claim T m3                                    => AVAILABLE
            show template T                               => committed=1500 day=3@0 claimed=3
    "

    /// Every check of a claim stands before the points, and whichever fails, neither side is there.
    a_coupon_with_a_price_is_paid_for_with_points: "
        @0   T = template stock 2 limit 2 price 30         => ok
             F = template                                  => ok
             claim T m1                                    => COUPON_FOR_POINTS price=30
             exchange F m1                                 => COUPON_NOT_FOR_POINTS
             exchange T m1                                 => POINTS_INSUFFICIENT available=0 requested=30
             show template T                               => claimed=0
             grant m1 70 until 5                           => ok
             c = exchange T m1                             => AVAILABLE points=-30 after=40
             show account m1                               => available=40 used=30
             revoke c                                      => REVOKED
             show account m1                               => available=40 used=30
             exchange T m1                                 => AVAILABLE after=10
             exchange T m1                                 => COUPON_LIMIT_REACHED limit=2
             grant m2 100                                  => ok
             exchange T m2                                 => COUPON_SOLD_OUT total=2
             show account m2                               => available=100 used=0
        @6   U = template price 20                         => ok
             exchange U m1                                 => POINTS_INSUFFICIENT available=0 requested=20
             show account m1                               => expired=10 used=60
    "

    /// What is above the number waits for another key; what moves points as an operator does by another way is refused; a rule
    /// made yesterday cannot be gone behind by an earlier effective time.
    large_adjustments_wait_for_another_key: "
        @1   k = api-key                                   => ok
             l = api-key                                   => ok
             grant m1 100                                  => ok
        @2   rules 0 approve-above 50                      => version=1
        @3   adjust m1 50 by k                             => EARN_ADMIN points=50 after=150 rules=1
             adjust m1 -50 by k                            => DEDUCT_ADMIN points=-50 after=100 rules=1
             adjust m1 1 by k at 1                         => EARN_ADMIN rules=1
             adjust m1 -1 by k                             => after=100
             a = adjust m1 51 by k                         => PENDING points=51 made=false
             show account m1                               => available=100
             adjust m1 51 by k at 1                        => PENDING
             grant m1 51 as EARN_ADMIN                     => POINTS_APPROVAL_NEEDED above=50
             debit m1 51 as DEDUCT_ADMIN                   => POINTS_APPROVAL_NEEDED above=50
             grant m1 50 as EARN_ADMIN                     => ok
             approve x by l                                => POINTS_ADJUSTMENT_NOT_FOUND
             approve a by k                                => POINTS_ADJUSTMENT_OWN
             approve a by l                                => APPROVED points=51 made=true
             approve a by k                                => APPROVED made=true
             reject a by l                                 => POINTS_ADJUSTMENT_CLOSED status=Approved
             show account m1                               => available=201
             b = adjust m1 -300 by l                       => PENDING
             approve b by k                                => POINTS_INSUFFICIENT available=201 requested=300
             grant m1 99                                   => ok
             approve b by k                                => APPROVED points=-300
             show account m1                               => available=0 revoked=351
             c = adjust m1 60 by k                         => PENDING
             reject c by k                                 => REJECTED made=false
             approve c by l                                => POINTS_ADJUSTMENT_CLOSED status=Rejected
             events a                                      => points_adjustment.requested@3 points_adjustment.approved@3
             events c                                      => points_adjustment.requested@3 points_adjustment.rejected@3
    "

    a_daily_cap_begins_anew_at_midnight: "
        @0   T = template limit 9 cap 2                   => day=none
        @10  claim T m1                                   => ok
        @24- claim T m1                                   => ok
             claim T m1                                   => COUPON_CAP_REACHED period=Day cap=2 ends_at=@24
        @24  claim T m1                                   => ok
             show template T                              => day=1@24 claimed=3
        @80  claim T m1                                   => ok
             show template T                              => day=1@72
    "

    /// Hour 0 is a Thursday, the first of January: the week ends after day 4, the month after day 31. Each cap counts for
    /// itself, and the narrowest one that is full answers.
    weeks_and_months_have_caps_of_their_own: "
        @0    T = template limit 99 cap 2 weekly 3 monthly 5 => day=none week=none month=none
              claim T m1                                     => ok
              claim T m1                                     => ok
              claim T m1                                     => COUPON_CAP_REACHED period=Day cap=2 ends_at=@24
        @24   claim T m1                                     => ok
              show template T                                => day=1@24 week=3@-72 month=3@0
              claim T m1                                     => COUPON_CAP_REACHED period=Week cap=3 ends_at=@96
        @96   claim T m1                                     => ok
              claim T m1                                     => ok
              show template T                                => day=2@96 week=2@96 month=5@0
        @120  claim T m1                                     => COUPON_CAP_REACHED period=Month cap=5 ends_at=@744
              update T version 1 limit 99 weekly 3 monthly 9 => ok
              claim T m1                                     => ok
              claim T m1                                     => COUPON_CAP_REACHED period=Week cap=3 ends_at=@264
              show template T                                => day=2@96 week=3@96 month=6@0
        @744  claim T m1                                     => ok
              show template T                                => day=2@96 month=1@744
              claim T m1 at 743                              => COUPON_PERIOD_CLOSED period=Month
    "

    /// A claim as of a day whose count is closed could break that day's cap unseen.
    claims_as_of_an_earlier_day_are_refused_under_a_cap: "
        @0   T = template limit 9 cap 1                   => ok
             O = template limit 9                         => ok
        @30  claim T m1                                   => ok
             claim T m1 at 23                             => COUPON_PERIOD_CLOSED period=Day since=@24
             claim T m1 at 25                             => COUPON_CAP_REACHED
             claim O m1 at 1                              => ok
             update T version 1 limit 9                   => ok
             claim T m1 at 1                              => ok
    "

    only_claims_under_a_cap_are_counted: "
        @0   T = template limit 9                         => ok
             claim T m1                                   => ok
             show template T                              => day=none
             update T version 1 limit 9 cap 2             => ok
             claim T m1                                   => ok
             show template T                              => day=1@0
             update T version 2 limit 9                   => ok
             claim T m1                                   => ok
             show template T                              => day=1@0
             update T version 3 limit 9 cap 1             => ok
             claim T m1                                   => COUPON_CAP_REACHED period=Day cap=1
             update T version 4 limit 9 cap 2             => ok
             claim T m1                                   => ok
             claim T m1                                   => COUPON_CAP_REACHED period=Day cap=2
    "

    /// A coupon once given can always be used, so what it may cost stays committed, whatever becomes of it.
    a_budget_is_committed_with_the_claim_and_never_given_back: "
        @0   T = template limit 9 budget 1499 days 1      => committed=0
             a = claim T m1                               => ok
             b = claim T m1                               => ok
             claim T m1                                   => COUPON_BUDGET_EXHAUSTED budget=1499
             revoke a                                     => REVOKED
             claim T m1                                   => COUPON_BUDGET_EXHAUSTED
             lock b o1                                    => ok
             use b o1 discount 100                        => USED
             claim T m1                                   => COUPON_BUDGET_EXHAUSTED
             update T version 1 limit 9 budget 999 days 1 => COUPON_BUDGET_BELOW_COMMITTED committed=1000
             update T version 1 limit 9 budget 1500 days 1 => version=2
             claim T m1                                   => AVAILABLE
             show template T                              => committed=1500
    "

    an_archived_template_stays_as_it_is_and_its_coupons_go_on: "
        @0   T = template limit 9 stock 9                 => ok
             c = claim T m1                               => ok
        @1   archive T                                    => version=2 enabled=false archived_at=1 updated_at=1
        @2   archive T                                    => version=2 archived_at=1
             claim T m2                                   => COUPON_TEMPLATE_ARCHIVED
             enable T                                     => COUPON_TEMPLATE_ARCHIVED
             disable T                                    => COUPON_TEMPLATE_ARCHIVED
             stock T 1                                    => COUPON_TEMPLATE_ARCHIVED
             update T version 2 name New                  => COUPON_TEMPLATE_ARCHIVED
             codes T SHARED text A                        => COUPON_TEMPLATE_ARCHIVED
             archive X                                    => COUPON_TEMPLATE_NOT_FOUND
             B: archive T                                 => COUPON_TEMPLATE_NOT_FOUND
             lock c o1                                    => LOCKED
             use c o1                                     => USED
             events T                                     => coupon_template.created@0 coupon_template.archived@1
    "

    a_transfer_keeps_the_terms_and_counts_against_the_receiver: "
        @0   T = template limit 1 stock 3 days 2          => ok
             c = claim T m1                               => until=48
             update T version 1 limit 1 days 9            => version=2
        @5   d = transfer c m2 because gift               => AVAILABLE member=m2 source=TRANSFER version=1 until=48 sequence=1
             show coupon c                                => REVOKED member=m1
             show template T                              => claimed=1 remaining=2 committed=500
             claim T m1                                   => COUPON_LIMIT_REACHED
             claim T m2                                   => COUPON_LIMIT_REACHED
             e = claim T m3                               => ok
             transfer e m2                                => COUPON_LIMIT_REACHED limit=1
             transfer d m2                                => COUPON_TRANSFER_TO_HOLDER
             transfer c m4                                => COUPON_REVOKED
             transfer X m4                                => COUPON_NOT_FOUND
             B: transfer d m4                             => COUPON_NOT_FOUND
             lock d o1                                    => LOCKED
             transfer d m4                                => COUPON_LOCKED order_id=OrderId(\"o1\")
             use d o1                                     => USED
             transfer d m4                                => COUPON_USED
             events c                                     => coupon.claimed@0 coupon.transferred@5
             events d                                     => coupon.received@5 coupon.locked@5 coupon.used@5
        @221 transfer e m4                                => COUPON_EXPIRED
    "

    /// Taken over twice changes nothing; what was issued elsewhere comes off the stock.
    what_lived_elsewhere_is_taken_over_once: "
        @0   adopt-template old stock 4 limit 2           => version=1 enabled=true total=4
             adopt-template old stock 9 limit 9           => version=1 total=4
             P = adopt-template past disabled             => version=2 enabled=false
             delete P                                     => COUPON_TEMPLATE_IMPORTED
             adopt-template past                          => version=2 enabled=false
        @1   a = adopt c1 old m1 USED until 9 order o1 used 5 discount 300 => USED source=IMPORT sequence=1 discount=300 used_at=5
             adopt c1 old m1 AVAILABLE until 99           => USED until=9
             b = adopt c2 old m1 LOCKED until 9 order o2  => LOCKED order=o2 sequence=2
             adopt c3 old m1 AVAILABLE until 9            => COUPON_LIMIT_REACHED limit=2
             c = adopt c4 old m2 EXPIRED until 2          => EXPIRED
             d = adopt c5 old m2 REVOKED until 9          => REVOKED
             adopt c6 old m3 AVAILABLE until 9            => COUPON_SOLD_OUT total=4
             adopt c7 none m3 AVAILABLE until 9           => COUPON_TEMPLATE_NOT_FOUND
             B: adopt c8 old m3 AVAILABLE until 9         => COUPON_TEMPLATE_NOT_FOUND
        @6   use b o2                                     => USED
             return a o1                                  => AVAILABLE
             events a                                     => coupon.claimed@1 coupon.locked@5 coupon.used@5 coupon.returned@6
             events c                                     => coupon.claimed@1 coupon.expired@2
             events d                                     => coupon.claimed@1 coupon.revoked@1
    "

    a_coupon_may_end_later_but_never_sooner: "
        @0   T = template days 1                          => ok
             c = claim T m1                               => until=24
             extend c 20                                  => until=24
             extend c 30                                  => until=30
             extend c 30                                  => until=30
        @29  lock c o1                                    => LOCKED
             extend c 40                                  => LOCKED until=40
        @39  unlock c o1                                  => AVAILABLE
        @40  extend c 90                                  => COUPON_EXPIRED valid_until=@40
             extend X 90                                  => COUPON_NOT_FOUND
             events c                                     => coupon.claimed@0 coupon.extended@0 coupon.locked@29 coupon.extended@29 coupon.unlocked@39 coupon.expired@40
    "
}
