//! Orders: their life as scenarios (the language is that of [`crate::script`]), a table of what they earn, spend and give back,
//! and laws that hold for any of them.

use proptest::prelude::*;
use scrip_domain::command::{Command, Envelope, Movement};
use scrip_domain::coupon::{Benefit, Definition, Validity};
use scrip_domain::id::IdSeed;
use scrip_domain::order::{Order, Refund, RefundRequest, Reservation};
use scrip_domain::points::{DebtPolicy, Spendable, TransactionType};
use scrip_domain::pricing::{Basket, Line, Rules};
use scrip_domain::tenant::Tenant;
use scrip_domain::time::{Calendar, LocalTime};
use scrip_domain::{Answer, MemberId, Outcome, TenantId, Timestamp};

use crate::coupons::scenarios;
use crate::harness::Harness;

scenarios! {
    reserving_takes_paying_uses_and_earns: "
        @0  T = template                                           => ok
            c = claim T m1                                         => AVAILABLE
            grant m1 1000                                          => ok
            o = reserve b1 m1 10000x2 with c points 300 until 5    => RESERVED original=20000 coupon=500 by_points=300 pay=19200 spent=300 earns=195 rules=0
            show coupon c                                          => LOCKED order=b1 locked_until=5
            show account m1                                        => available=700 frozen=300
        @1  pay o                                                  => PAID paid_at=1 granted=195
            show coupon c                                          => USED discount=500 used_at=1
            show account m1                                        => total=1195 available=895 frozen=0 used=300
            ledger m1                                              => EARN_ORDER+1000@0 HOLD-300@0 USE_ORDER-300@1 EARN_ORDER+195@1
            show template T                                        => used=1
        @2  pay o                                                  => PAID paid_at=1 granted=195
            cancel o                                               => ORDER_CLOSED status=Paid
            show account m1                                        => total=1195 available=895
    "

    /// thelia#2195, woocommerce#27673, litemall#472: what a sale that failed had taken is free again.
    cancelling_gives_everything_back: "
        @0  T = template                                   => ok
            c = claim T m1                                 => AVAILABLE
            g = grant m1 1000 until 90                     => ok
            o = reserve b1 m1 10000x1 with c points 300    => RESERVED
            cancel o                                       => CANCELLED closed_at=0
            show coupon c                                  => AVAILABLE order=none locked_until=none
            show account m1                                => total=1000 available=1000 frozen=0 used=0
            show lot g                                     => remaining=1000 held=0 expires_at=90
            cancel o                                       => CANCELLED
            pay o                                          => ORDER_CLOSED status=Cancelled
            refund o r1 full                               => ORDER_NOT_PAID status=Cancelled
            reserve b2 m1 10000x1 with c points 1000       => RESERVED spent=1000
    "

    a_deadline_releases_without_a_sweep: "
        @0   T = template                                          => ok
             c = claim T m1                                        => AVAILABLE
             grant m1 100                                          => ok
             o = reserve b1 m1 10000x1 with c points 100 until 5   => RESERVED
        @5-  reserve b2 m1 10000x1 with c                          => COUPON_LOCKED
             reserve b2 m1 10000x1 points 100                      => POINTS_INSUFFICIENT available=0 requested=100
        @5   p = reserve b2 m1 10000x1 with c points 100 until 9   => RESERVED coupon=500 spent=100
             show order o                                          => RESERVED
        @6   settle-order o                                        => orders=1
             show order o                                          => EXPIRED closed_at=5
             settle-order o                                        => orders=0
             cancel o                                              => EXPIRED
             pay p                                                 => PAID
    "

    /// Nexuq#278: a payment that comes late is taken when nothing has changed, and refused with the reason when it has.
    a_late_payment_is_taken_while_everything_is_free: "
        @0  T = template limit 2                                   => ok
            c = claim T m1                                         => AVAILABLE
            d = claim T m1                                         => AVAILABLE
            grant m1 200                                           => ok
            o = reserve b1 m1 10000x1 with c points 100 until 5    => RESERVED
            p = reserve b2 m1 10000x1 with d points 100 until 5    => RESERVED
        @7  pay o                                                  => PAID paid_at=7 closed_at=none spent=100 pay=9400
            show coupon c                                          => USED order=b1
            show account m1                                        => frozen=0 used=100
            q = reserve b3 m1 10000x1 with d until 9               => RESERVED
            pay p                                                  => ORDER_EXPIRED expired_at=@5 reason=\"COUPON_LOCKED\"
            cancel q                                               => CANCELLED
            debit m1 150                                           => ok
            pay p                                                  => ORDER_EXPIRED reason=\"POINTS_INSUFFICIENT\"
            show coupon d                                          => AVAILABLE
            grant m1 60                                            => ok
            pay p                                                  => PAID
    "

    a_lock_is_honoured_until_the_deadline_though_the_coupon_ends: "
        @0  T = template valid 0 3                          => ok
            c = claim T m1                                  => AVAILABLE
            o = reserve b1 m1 10000x1 with c until 9        => RESERVED
        @5  pay o                                           => PAID
            show coupon c                                   => USED
            U = template valid 0 9                          => ok
            d = claim U m1                                  => AVAILABLE
            p = reserve b2 m1 10000x1 with d until 20       => RESERVED
        @9  cancel p                                        => CANCELLED
            show coupon d                                   => EXPIRED
    "

    a_quote_keeps_its_rules_while_it_holds: "
        @0  rules 0 earn 2/100                  => version=1
            reserve o1 m1 100x1 quote 0/5       => rules=0
            reserve o2 m1 100x1                 => rules=1
        @5  reserve o3 m1 100x1 quote 0/5       => ORDER_QUOTE_EXPIRED
            reserve o1 m1 100x1 quote 0/5       => EXPIRED rules=0
    "

    the_same_reservation_is_one_order: "
        @0  grant m1 1000                                       => ok
            o = reserve b1 m1 100x2 points 100 until 5          => RESERVED
            reserve b1 m1 100x2 points 100 until 9              => RESERVED
            reserve b1 m1 100x3 points 100 until 5              => ORDER_EXISTS status=Reserved
            reserve b1 m1 100x2 points 101 until 5              => ORDER_EXISTS
            reserve b1 m2 100x2 points 100 until 5              => ORDER_EXISTS
            show account m1                                     => frozen=100
        @6  reserve b1 m1 100x2 points 100 until 9              => EXPIRED
            show account m1                                     => frozen=0
            B: reserve b1 m1 100x2 until 9                      => RESERVED
            pay o of m2                                         => ok
    "

    /// mall#1003: a coupon that does not apply refuses the order; nothing of it is kept.
    an_order_is_all_or_nothing: "
        @0  T = template limit 3                                => ok
            S = template min 20000                              => ok
            L = template valid 5 9                              => ok
            c = claim T m1                                      => ok
            d = claim T m1                                      => ok
            e = claim T m2                                      => ok
            s = claim S m1                                      => ok
            l = claim L m1                                      => ok
            grant m1 50                                         => ok
            reserve b1 m1 10000x1 with e                        => COUPON_NOT_FOUND
            reserve b1 m1 10000x1 with x                        => COUPON_NOT_FOUND
            reserve b1 m1 10000x1 with l                        => COUPON_NOT_YET_VALID
            reserve b1 m1 10000x1 with s                        => COUPON_BELOW_THRESHOLD min_amount=20000
            reserve b1 m1 10000x1 with c,d                      => COUPON_NOT_STACKABLE
            reserve b1 m1 10000x1 with c,c                      => COUPON_LOCKED
            reserve b1 m1 0x1 with c                            => COUPON_WITHOUT_EFFECT
            reserve b1 m1 10000x1 with c points 100             => POINTS_INSUFFICIENT available=50 requested=100
            reserve b1 m1 10000x1 with c until 0                => DEADLINE_PASSED
            show coupon c                                       => AVAILABLE
            show account m1                                     => available=50 frozen=0
            revoke d                                            => REVOKED
            reserve b1 m1 10000x1 with d                        => COUPON_REVOKED
            reserve b1 m1 10000x1 with c points 50              => RESERVED spent=0
            pay b9                                              => ORDER_NOT_FOUND
    "

    what_an_order_has_taken_only_the_order_gives_back: "
        @0  T = template                                           => ok
            c = claim T m1                                         => ok
            grant m1 1000                                          => ok
            o = reserve b1 m1 10000x1 with c points 100 until 9    => RESERVED
            lock c b1                                              => ORDER_MANAGES_IT order_id=\"b1\"
            lock c b2                                              => COUPON_LOCKED
            use c b1                                               => ORDER_MANAGES_IT
            unlock c b1                                            => ORDER_MANAGES_IT
            revoke c                                               => COUPON_LOCKED
            capture o 5                                            => ORDER_MANAGES_IT
            release o                                              => ORDER_MANAGES_IT
            p = pay o                                              => PAID
            use c b1                                               => ORDER_MANAGES_IT
            return c b1                                            => ORDER_MANAGES_IT
            reverse p                                              => ORDER_MANAGES_IT
            refund o r1 full                                       => REFUNDED returned=100
            lock c b7                                              => LOCKED
    "

    /// shopware PR 19070, statamic-cargo PR 168: parts of refunds add up.
    refunds_add_up_whatever_their_parts: "
        @0  grant m1 1000                                      => ok
            rules 0 earn 1/10 redeem 1/1                       => version=1
            o = reserve b1 m1 100x3 33x1 freight 50 points 100 => RESERVED pay=283 spent=100 earns=33
            pay o                                              => PAID granted=33
            refund o r1 a:1                                    => PARTIALLY_REFUNDED amount=70 returned=30 clawed=10 coupons=
            refund o r1 a:1                                    => PARTIALLY_REFUNDED amount=70
            refund o r1 a:2                                    => ORDER_REFUND_EXISTS
            refund o r2 a:1 freight 20                         => PARTIALLY_REFUNDED amount=90 freight=20
            refund o r3 a:2                                    => ORDER_REFUND_EXCEEDS left=1
            refund o r3 z:1                                    => ORDER_ITEM_UNKNOWN
            refund o r3 b:1 freight 31                         => ORDER_REFUND_EXCEEDS_FREIGHT left=30
            refund o r3 full                                   => REFUNDED freight=30
            show order o                                       => REFUNDED refunded=283 returned=100 clawed=33
            refund o r4 full                                   => ORDER_NOTHING_TO_REFUND
            show account m1                                    => total=1033 available=1000 used=0 revoked=33 debt=0
    "

    /// The quote says what the order would earn; what the limit leaves of that is known when it is granted.
    a_limit_of_a_day_cuts_the_grant: "
        @0   rules 0 earn 1/1 per-day 100                       => version=1
             a = reserve a m1 60x1                              => RESERVED earns=60
             b = reserve b m1 60x1 40x1                         => RESERVED earns=100
             c = reserve c m1 10x1                              => RESERVED earns=10
             pay a                                              => PAID granted=60 cut=0 by=none
             pay b                                              => PAID earns=100 granted=40 cut=60 by=DAY
             pay c                                              => PAID earns=10 granted=0 cut=10 by=DAY
             pay c                                              => PAID granted=0 cut=10
             ledger m1                                          => EARN_ORDER+60@0 EARN_ORDER+40@0
             show account m1                                    => available=100 in_day=100 in_week=100 in_month=100
        # What was granted goes back, and no more; the day stays used up.
             refund b r1 b:1                                    => PARTIALLY_REFUNDED amount=40 clawed=16
             refund b r2 a:1                                    => REFUNDED amount=60 clawed=24
             refund c r1 full                                   => REFUNDED amount=10 clawed=0
             show account m1                                    => available=60 debt=0 in_day=100
             d = reserve d m1 5x1                               => RESERVED
             pay d                                              => PAID granted=0 cut=5
             e = reserve e m2 5x1                               => RESERVED
             pay e                                              => PAID granted=5 cut=0
             grant m1 500                                       => ok
        @1d  f = reserve f m1 70x1                              => RESERVED
             pay f                                              => PAID granted=70
             show account m1                                    => in_day=70 in_week=170
    "

    /// The first day is a Thursday; the fourth day after it a Monday; a month ends behind the thirtieth.
    weeks_begin_on_monday_and_months_with_their_first: "
        @0   rules 0 earn 1/1 per-week 100 per-month 150        => version=1
             a = reserve a m1 80x1                              => RESERVED
             pay a                                              => PAID granted=80
        @3d  b = reserve b m1 50x1                              => RESERVED
             pay b                                              => PAID granted=20 cut=30 by=WEEK
        @4d  c = reserve c m1 60x1                              => RESERVED
             pay c                                              => PAID granted=50 cut=10 by=MONTH
        @11d d = reserve d m1 10x1                              => RESERVED
             pay d                                              => PAID granted=0 cut=10 by=MONTH
        @31d e = reserve e m1 120x1                             => RESERVED
             pay e                                              => PAID granted=100 cut=20 by=WEEK
        @32d f = reserve f m1 60x1                              => RESERVED
             pay f                                              => PAID granted=50 cut=10 by=MONTH
             show account m1                                    => in_day=50 in_week=50 in_month=150
    "

    points_that_come_later_count_on_the_day_they_come: "
        @0   rules 0 earn 1/1 per-day 100 delay 1               => version=1
             a = reserve a m1 80x1                              => RESERVED
             b = reserve b m1 40x2                              => RESERVED
             c = reserve c m1 30x1                              => RESERVED
             pay a                                              => PAID granted=0 cut=0 due=24
             pay b                                              => PAID
             pay c                                              => PAID
             confirm c                                          => PAID granted=30
             refund b r1 a:1                                    => PARTIALLY_REFUNDED clawed=40
        @1d  settle-order a                                     => granted=80
             settle-order b                                     => granted=20
             show order b                                       => earns=80 granted=20 cut=20 clawed=40 due=none
             show account m1                                    => in_day=100 in_week=130 available=130
             refund b r2 a:1                                    => REFUNDED clawed=20
             show account m1                                    => available=110
             refund a r1 full                                   => REFUNDED clawed=80
        # With nothing left of the day, what waited is over.
             d = reserve d m1 10x1 until 48                     => RESERVED
        @24  pay d                                              => PAID due=48
             e = reserve e m1 100x1 until 48                    => RESERVED
             pay e                                              => PAID
        @2d  settle-order e                                     => granted=100
             settle-order d                                     => granted=0
             show order d                                       => granted=0 cut=10 due=none
             confirm d                                          => PAID granted=0 cut=10
    "

    /// A clock that is put back, or an import of older orders, does not begin a day anew.
    a_day_that_comes_late_counts_in_the_one_that_has_begun: "
        @0   rules 0 earn 1/1 per-day 100                       => version=1
        @1d  a = reserve a m1 70x1                              => RESERVED
             pay a                                              => PAID granted=70
             b = reserve b m1 70x1 at 2                         => RESERVED
             pay b at 2                                         => PAID granted=30 cut=40
             c = reserve c m1 70x1                              => RESERVED
             pay c                                              => PAID granted=0
    "

    two_accounts_of_a_member_have_one_limit: "
        @0   rules 0 earn 1/1 per-day 100 per-week 1000         => version=1
             a = reserve a old 70x1                             => RESERVED
             pay a                                              => PAID granted=70
             b = reserve b new 50x1                             => RESERVED
             pay b                                              => PAID granted=50
             x = reserve x old 10x1 until 9                     => RESERVED
             merge old new                                      => sent=-70
             show account new                                   => available=120 in_day=120 in_week=120
             show account old                                   => available=0 in_day=0
             c = reserve c new 5x1                              => RESERVED
             pay c                                              => PAID granted=0 cut=5 by=DAY
             pay x                                              => PAID granted=10
             merge old new                                      => sent=-10
             show account new                                   => available=130 in_day=130 in_week=130
        @1d  d = reserve d new 40x1                             => RESERVED
             pay d                                              => PAID granted=40
             e = reserve e m3 20x1 at 0                         => RESERVED
             pay e at 0                                         => PAID granted=20
             merge m3 new                                       => sent=-20
             show account new                                   => in_day=40 in_week=190
    "

    /// odoo PR 257854: buying and refunding earns nothing.
    a_debt_that_time_has_settled_is_none_that_a_refund_repays: "
        @0   o = reserve o1 m1 10000x1 until 5              => RESERVED earns=100
             pay o                                          => PAID granted=100
             debit m1 100                                   => after=0
             g = grant m1 10                                => ok
             debit m1 10                                    => after=0
             reverse g                                      => CLAWBACK debt=10
             grant m1 10 from 3                             => ok
        @6   refund o r1 full                               => REFUNDED clawed=100 owed=100
             show account m1                                => debt=100 available=0
    "

    /// The order keeps the rules that made its price; what becomes of a shortfall is asked when it comes.
    earned_points_that_were_spent_are_forgiven_where_the_rules_of_the_refund_say_so: "
        @0  rules 0 earn 1/1 redeem 1/1                     => version=1
            o = reserve b1 m1 100x3                         => RESERVED pay=300 earns=300
            pay o                                           => PAID granted=300
            debit m1 250                                    => after=50
            rules 1 earn 5/1 redeem 1/1 forgive             => version=2
            refund o r1 a:1                                 => PARTIALLY_REFUNDED amount=100 clawed=100 owed=0 forgiven=50
            refund o r1 a:1                                 => PARTIALLY_REFUNDED forgiven=50
            refund o r2 a:1                                 => PARTIALLY_REFUNDED clawed=100 owed=0 forgiven=100
            grant m1 30                                     => ok
            refund o r3 full                                => REFUNDED clawed=100 owed=0 forgiven=70
            show account m1                                 => total=330 available=0 used=250 revoked=80 debt=0
            show order o                                    => REFUNDED clawed=300 rules=1
    "

    /// odoo PR 257854, erpnext#32951: bought, the points spent, and the goods returned.
    earned_points_that_were_spent_are_owed: "
        @0  rules 0 earn 1/1 redeem 1/1                     => version=1
            grant m1 40                                     => ok
            o = reserve b1 m1 100x1 points 40               => RESERVED pay=60 earns=100
            pay o                                           => PAID granted=100
            debit m1 100                                    => after=0
        # What the order had spent comes back first, and pays a part of what it had earned.
            refund o r1 full                                => REFUNDED amount=60 returned=40 clawed=100 owed=60
            show account m1                                 => total=140 available=0 used=100 revoked=40 debt=60
            grant m1 70                                     => ok
            show account m1                                 => available=10 debt=0
    "

    /// CompLinks#203, FloCafe#720: points for goods that were returned or struck off before they were earned.
    earned_points_may_come_later_and_what_is_refunded_by_then_never_does: "
        @0   rules 0 earn 1/1 redeem 1/1 delay 1             => version=1
             o = reserve b1 m1 100x2                         => RESERVED earns=200
             pay o                                           => PAID granted=0 due=24
        @5   refund o r1 a:1                                 => PARTIALLY_REFUNDED clawed=100 owed=0
             settle-order o                                  => orders=0 granted=0
        @24  settle-order o                                  => granted=100
             settle-order o                                  => granted=0
             show order o                                    => granted=100 due=none
             show account m1                                 => total=100 available=100 debt=0
             refund o r2 a:1                                 => REFUNDED clawed=100 owed=0
             show account m1                                 => total=100 available=0 revoked=100
        @25  p = reserve b2 m1 50x1                          => RESERVED
             pay p                                           => PAID due=49
             refund p r1 full                                => REFUNDED clawed=50
             show order p                                    => due=none
        @60  settle-order p                                  => granted=0
    "

    an_order_that_is_confirmed_earns_at_once: "
        @0   rules 0 earn 1/1 redeem 1/1 delay 14            => version=1
             o = reserve b1 m1 100x2                         => RESERVED earns=200
             confirm o                                       => ORDER_NOT_PAID
             pay o                                           => PAID granted=0 due=336
        @5   refund o r1 a:1                                 => PARTIALLY_REFUNDED clawed=100
        @6   x = confirm o                                   => PARTIALLY_REFUNDED granted=100 due=none
             confirm o                                       => PARTIALLY_REFUNDED granted=100
             show account m1                                 => total=100 available=100
      @340   settle-order o                                  => granted=0
             refund o r2 a:1                                 => REFUNDED clawed=100
             show account m1                                 => total=100 available=0 revoked=100
             p = reserve b2 m1 50x1                          => RESERVED
             cancel p                                        => CANCELLED
             confirm p                                       => ORDER_NOT_PAID
             B: confirm o                                    => ORDER_NOT_FOUND
    "

    earned_points_live_as_the_rules_of_the_order_say: "
        @0   rules 0 earn 1/1 redeem 1/1 live 2             => version=1
             o = reserve b1 m1 10x1                         => RESERVED rules=1
             rules 1 earn 9/1 redeem 1/1 live month         => version=2
        @1   x = pay o                                      => PAID granted=10
             show lot x                                     => points=10 expires_at=49
             p = reserve b2 m1 10x1                         => RESERVED rules=2 earns=90
             y = pay p                                      => PAID granted=90
             show lot y                                     => expires_at=720
    "

    spent_points_return_to_their_lots: "
        @0  rules 0 earn 1/100 redeem 1/1                   => version=1
            a = grant m1 10 until 20                        => ok
            b = grant m1 10 until 90                        => ok
            o = reserve b1 m1 100x2 points 16 until 30      => RESERVED spent=16
            pay o                                           => PAID
            show lot a                                      => used=10
            show lot b                                      => used=6
        @5  refund o r1 a:1                                 => PARTIALLY_REFUNDED returned=8
            show lot a                                      => remaining=8 used=2
        # The rest of lot a has died meanwhile: a week of grace.
       @20  n = refund o r2 a:1                             => REFUNDED returned=8
            show lot a                                      => moved=2 expired=8 used=0
            show lot b                                      => remaining=10 used=0
            show account m1                                 => used=0 expired=8
    "

    coupons_return_when_nothing_is_left: "
        @0   T = template limit 9 valid 0 10 extend 2       => ok
             c = claim T m1                                 => ok
             o = reserve b1 m1 1000x2 with c                => RESERVED
             pay o                                          => PAID
             refund o r1 a:1                                => PARTIALLY_REFUNDED coupons=
             show coupon c                                  => USED
             refund o r2 a:1                                => REFUNDED coupons=AVAILABLE
             show coupon c                                  => AVAILABLE until=10
             show template T                                => used=0
             p = reserve b2 m1 1000x1 with c                => RESERVED
             pay p                                          => PAID
             d = claim T m1                                 => ok
             q = reserve b3 m1 1000x1 with d                => RESERVED
             pay q                                          => PAID
        # registrasion#1: the shop may keep them.
             refund q r1 full keep                          => REFUNDED coupons=
             show coupon d                                  => USED
        @12  refund p r1 full                               => REFUNDED coupons=AVAILABLE
             show coupon c                                  => AVAILABLE until=60
    "

    a_coupon_that_cannot_be_extended_is_a_case_for_an_operator: "
        @0   T = template limit 2 valid 0 10 extend 2       => ok
             N = template valid 0 10 extend 0               => ok
             c = claim T m1                                 => ok
             n = claim N m1                                 => ok
             o = reserve b1 m1 1000x1 with c                => RESERVED
             pay o                                          => PAID
             p = reserve b2 m1 1000x1 with n                => RESERVED
             pay p                                          => PAID
             disable T                                      => ok
        @12  x = refund o r1 full                           => REFUNDED coupons=EXPIRED
             show coupon c                                  => EXPIRED
             y = refund p r1 full                           => REFUNDED coupons=EXPIRED
             close x as RESOLVED                            => RESOLVED reason=TEMPLATE_DISABLED
             close x as RESOLVED                            => RESOLVED
             close x as DISMISSED                           => COUPON_COMPENSATION_CLOSED status=Resolved
             close y as DISMISSED                           => DISMISSED reason=NO_EXTENSION
             close z as RESOLVED                            => COUPON_COMPENSATION_NOT_FOUND
    "

    limits_of_redemption_are_told: "
        @0  rules 0 redeem 10/100 percent 50 most 105       => version=1
            grant m1 1000                                   => ok
            reserve b1 m1 10000x1 points 1000               => RESERVED spent=100 by_points=1000
            reserve b2 m1 900x1 points 1000                 => RESERVED spent=40 by_points=400
            reserve b3 m1 900x1 points 9                    => RESERVED spent=0
            rules 1 redeem 10/100 apart                     => version=2
            T = template                                    => ok
            c = claim T m1                                  => ok
            reserve b4 m1 900x1 with c points 100           => RESERVED spent=0 coupon=500
    "
}

const TENANT: TenantId = TenantId(uuid::Uuid::from_u128(1));

/// A tenant whose member has points to spend.
struct Shop {
    harness: Harness,
    member: MemberId,
    asked: u64,
}

impl Shop {
    fn new(rules: Rules, points: i64) -> Shop {
        let member: MemberId = "m".parse().expect("a member");
        let mut shop = Shop { harness: Harness::default(), member: member.clone(), asked: 0 };
        let row = Tenant {
            id: TENANT,
            name: "Shop".into(),
            currency: "EUR".into(),
            time_zone: "UTC".into(),
            refund_grace_days: 7,
            created_at: Timestamp(0),
            program: None,
        };
        shop.ask(Command::CreateTenant(row));
        shop.ask(Command::SetRules { expected_version: 0, rules: Box::new(rules), effective_from: None });
        let movement = Movement { points, kind: TransactionType::EarnAdmin, reference: None, remark: None };
        shop.ask(Command::Grant { member_id: member, movement, spendable: Spendable::default() });
        shop
    }

    fn ask(&mut self, command: Command) -> Outcome {
        self.asked += 1;
        let seed = IdSeed { unix_ms: self.asked, random: self.asked.into() };
        let (at, now) = (Timestamp(0), Timestamp(0));
        let envelope = Envelope { tenant: TENANT, actor: None, command, idempotency: None, at, now, seed };
        match self.harness.execute(&[envelope]).remove(0) {
            Answer::Accepted { outcome, .. } => outcome,
            Answer::Refused(rejection) => panic!("{rejection:?}"),
        }
    }

    fn spend_all_but(&mut self, left: i64) {
        let available = self.harness.rows.accounts[&(TENANT, self.member.clone())].available;
        let movement =
            Movement { points: available - left, kind: TransactionType::UseProduct, reference: None, remark: None };
        self.ask(Command::Debit { member_id: self.member.clone(), movement });
    }

    fn coupon(&mut self, benefit: Benefit) -> scrip_domain::CouponId {
        let definition = Definition::new("T", benefit, Validity::days(30));
        let create = Command::CreateTemplate { definition: Box::new(definition), total_stock: None };
        let Outcome::Template(template) = self.ask(create) else { panic!("no template") };
        let claim = Command::Claim { template_id: template.id, member_id: self.member.clone(), member_level: None };
        let Outcome::Coupon(coupon) = self.ask(claim) else { panic!("no coupon") };
        coupon.id
    }

    fn reserve(&mut self, lines: Vec<Line>, freight: i64, coupons: Vec<scrip_domain::CouponId>, points: i64) -> Order {
        let basket = Basket {
            lines,
            freight,
            member_level: None,
            local_time: LocalTime { day: 0, minute: 0 },
            attributes: Default::default(),
            member_attributes: Default::default(),
        };
        let reservation = Reservation {
            quoted: None,
            order_id: "o".parse().expect("an order"),
            member_id: self.member.clone(),
            basket,
            coupon_ids: coupons,
            points,
            expires_at: Timestamp(1),
        };
        let Outcome::Order(order) = self.ask(Command::ReserveOrder(Box::new(reservation))) else { panic!("no order") };
        *order
    }

    fn pay(&mut self, order: &Order) -> Order {
        let calendar = std::sync::Arc::new(Calendar::default());
        let (member_id, order_id) = (self.member.clone(), order.order_id.clone());
        let Outcome::Order(order) = self.ask(Command::PayOrder { member_id, order_id, calendar }) else {
            panic!("no order")
        };
        *order
    }

    fn refund(&mut self, order: &Order, number: usize, lines: Option<Vec<(String, i64)>>, freight: i64) -> Refund {
        let refund_id = format!("r-{number}").parse().expect("a refund");
        let refund = RefundRequest { refund_id, lines, freight, return_coupons: true, remark: None };
        let (member_id, order_id) = (self.member.clone(), order.order_id.clone());
        let command = Command::RefundOrder { member_id, order_id, refund: Box::new(refund) };
        let Outcome::Refund(refund) = self.ask(command) else { panic!("no refund") };
        *refund
    }
}

fn line(item: &str, unit_price: i64, quantity: i64, points_ratio: u16) -> Line {
    Line {
        item_id: item.into(),
        product_id: "p".into(),
        sku_id: None,
        category_ids: Vec::new(),
        unit_price,
        quantity,
        points_ratio,
    }
}

fn number(text: &str) -> i64 {
    text.trim().parse().unwrap_or_else(|_| panic!("no number: {text:?}"))
}

/// One line of the table; what it gives, in the words of its right side.
fn play(row: &str) -> String {
    let columns: Vec<&str> = row.split('|').map(str::trim).collect();
    let [earn, redeem, cap, goods, coupon, freight, points, refunds] = columns[..] else { panic!("columns of {row}") };
    let mut rules = Rules::default();
    let ratio = |text: &str| text.split_once('/').map(|(ratio, base)| (number(ratio), number(base))).expect("a ratio");
    let (earn, forgives) = earn.strip_suffix('!').map_or((earn, false), |earn| (earn, true));
    rules.points.debt_policy = if forgives { DebtPolicy::Forgive } else { DebtPolicy::Owe };
    let (earn, most) = earn.split_once('<').map_or((earn, None), |(earn, most)| (earn, Some(number(most))));
    (rules.points.earn.ratio, rules.points.earn.base) = ratio(earn);
    rules.points.earn.max_points_per_day = most;
    (rules.points.redeem.ratio, rules.points.redeem.base) = ratio(redeem);
    rules.points.redeem.max_percent = None;
    for limit in cap.split(',').filter(|limit| *limit != "-") {
        match limit.strip_suffix('%') {
            Some(percent) => rules.points.redeem.max_percent = Some(number(percent) as u8),
            None => rules.points.redeem.max_points_per_order = Some(number(limit)),
        }
    }
    let mut shop = Shop::new(rules, 1_000_000);
    let coupons = match (coupon, coupon.strip_suffix('%')) {
        ("-", _) => Vec::new(),
        (_, Some(percent)) => {
            let basis_points = number(percent) as u16 * 100;
            vec![shop.coupon(Benefit::PercentOff { basis_points, max_amount: None })]
        }
        (amount, None) => vec![shop.coupon(Benefit::AmountOff { amount: number(amount) })],
    };
    let lines = goods.split_whitespace().zip('a'..='z').map(|(goods, item)| {
        let (price, rest) = goods.split_once('x').expect("price x units");
        let (units, ratio) = rest.split_once('r').unwrap_or((rest, "100"));
        line(&item.to_string(), number(price), number(units), number(ratio) as u16)
    });
    let order = shop.reserve(lines.collect(), number(freight), coupons, number(points));
    let order = shop.pay(&order);
    assert_eq!(order.points_granted, order.quote.points_to_earn - order.points_cut(), "{row}");
    let mut told = Vec::new();
    for (index, asked) in refunds.split(';').map(str::trim).enumerate() {
        if let Some(left) = asked.strip_prefix("left") {
            shop.spend_all_but(number(left));
            told.push(asked.to_owned());
            continue;
        }
        let (items, freight) = asked.split_once("+f").unwrap_or((asked, "0"));
        let lines = (asked != "full").then(|| {
            let items = items.split(',').filter(|item| !item.is_empty());
            items.map(|item| (item[..1].to_owned(), number(&item[1..]))).collect()
        });
        let refund = shop.refund(&order, index, lines, number(freight));
        let lacking = match (refund.points_owed, refund.points_forgiven) {
            (0, 0) => String::new(),
            (owed, 0) => format!("?{owed}"),
            (0, forgiven) => format!("!{forgiven}"),
            both => panic!("{both:?}"),
        };
        told.push(format!(
            "{asked}={}/{}/{}{lacking}",
            refund.amount, refund.points_returned, refund.points_clawed_back
        ));
    }
    shop.harness.check_all();
    let quote = &order.quote;
    let granted = order.earn_cut.map_or(String::new(), |_| format!(":{}", order.points_granted));
    let earns = format!("{}{granted}", quote.points_to_earn);
    format!("{} | {} | {earns} | {}", quote.pay_amount, quote.points_effective, told.join("; "))
}

#[test]
fn every_row_of_the_table_gives_what_it_says() {
    let mut wrong = Vec::new();
    let mut rows = 0;
    for row in include_str!("golden/orders.txt").lines().filter(|row| !row.is_empty() && !row.starts_with('#')) {
        rows += 1;
        let (asked, expected) = row.split_once("=>").expect("a row has an arrow");
        let (totals, refunds) = expected.rsplit_once('|').expect("a row has refunds");
        let asks: Vec<&str> =
            refunds.split(';').map(|part| part.trim().split('=').next().unwrap_or_default()).collect();
        let got = play(&format!("{asked}|{}", asks.join(";")));
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        if words(&got) != words(&format!("{totals}|{refunds}")) {
            wrong.push(format!("{row}\n  got {got}"));
        }
    }
    assert!(rows >= 100, "{rows} rows");
    assert!(wrong.is_empty(), "{} of {rows} rows\n{}", wrong.len(), wrong.join("\n"));
}

/// reference acceptance: 2 x 100, coupon 10, 100 points (worth 1) is 11 off and leaves 189; 200.00 with 20.00 off and 100
/// points leaves 179.00.
#[test]
fn the_origins_figures_come_out() {
    let quoted = |price: i64, units: i64, off: i64| {
        let mut rules = Rules::default();
        (rules.points.redeem.ratio, rules.points.redeem.base) = (100, 100);
        let mut shop = Shop::new(rules, 1_000);
        let coupon = shop.coupon(Benefit::AmountOff { amount: off });
        let order = shop.reserve(vec![line("a", price, units, 100)], 0, vec![coupon], 100);
        (order.quote.coupon_discount, order.quote.points_discount, order.quote.total_discount, order.quote.pay_amount)
    };
    assert_eq!(quoted(10_000, 2, 1_000), (1_000, 100, 1_100, 18_900));
    assert_eq!(quoted(20_000, 1, 2_000), (2_000, 100, 2_100, 17_900));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// erpnext#58042: whatever the parts and their order, refunds give back exactly what was paid, spent and earned, and leave
    /// the account as if nothing had been bought, but for what it has earned in its life.
    #[test]
    fn refunds_in_any_parts_give_back_the_whole(
        goods in proptest::collection::vec((0i64..2_000, 1i64..8, 0u16..300), 1..5),
        off in 0i64..3_000,
        points in 0i64..2_000,
        freight in 0i64..500,
        most in proptest::option::weighted(0.5, 1i64..400),
        order in any::<u64>(),
    ) {
        let mut rules = Rules::default();
        (rules.points.earn.ratio, rules.points.earn.base) = (3, 70);
        rules.points.earn.max_points_per_week = most;
        (rules.points.redeem.ratio, rules.points.redeem.base) = (3, 7);
        rules.points.redeem.max_percent = None;
        let mut shop = Shop::new(rules, 2_000);
        let worth: i64 = goods.iter().map(|(price, units, _)| price * units).sum();
        let coupons = if off > 0 && worth > 0 { vec![shop.coupon(Benefit::AmountOff { amount: off })] } else { Vec::new() };
        let lines: Vec<Line> =
            goods.iter().zip('a'..).map(|((price, units, ratio), item)| line(&item.to_string(), *price, *units, *ratio)).collect();
        let mut units: Vec<String> = lines.iter().flat_map(|line| vec![line.item_id.clone(); line.quantity as usize]).collect();
        let before = shop.harness.rows.accounts.clone();
        let reserved = shop.reserve(lines, freight, coupons, points);
        let paid = shop.pay(&reserved);
        let mut random = crate::generate::Random::new(order);
        let (mut amount, mut returned, mut taken, mut number) = (0, 0, 0, 0);
        while !units.is_empty() {
            let size = random.between(1, 3).min(units.len() as i64);
            let mut lines: Vec<(String, i64)> = Vec::new();
            for _ in 0..size {
                let item = units.swap_remove(random.between(0, units.len() as i64 - 1) as usize);
                match lines.iter_mut().find(|(known, _)| *known == item) {
                    Some((_, quantity)) => *quantity += 1,
                    None => lines.push((item, 1)),
                }
            }
            let refund = shop.refund(&paid, number, Some(lines), 0);
            prop_assert!(refund.amount >= 0 && refund.points_returned >= 0 && refund.points_clawed_back >= 0);
            (amount, returned, taken) =
                (amount + refund.amount, returned + refund.points_returned, taken + refund.points_clawed_back);
            number += 1;
        }
        let quote = &paid.quote;
        prop_assert_eq!(amount, quote.pay_amount - freight);
        let earned = quote.points_to_earn.min(most.unwrap_or(i64::MAX));
        prop_assert_eq!((paid.points_granted, paid.points_cut()), (earned, quote.points_to_earn - earned));
        prop_assert_eq!((returned, taken), (quote.points_effective, earned));
        if freight > 0 {
            prop_assert_eq!(shop.refund(&paid, number, None, 0).amount, freight);
        }
        let key = (TENANT, shop.member.clone());
        let (was, is) = (&before[&key], &shop.harness.rows.accounts[&key]);
        prop_assert_eq!((is.available, is.frozen, is.used, is.debt), (was.available, 0, 0, 0));
        prop_assert_eq!(is.total_points, was.total_points + earned);
        shop.harness.check_all();
    }

    /// A reservation that is cancelled leaves coupons and points as they were.
    #[test]
    fn cancelling_restores_everything(
        goods in proptest::collection::vec((1i64..2_000, 1i64..8), 1..4),
        points in 0i64..2_000,
    ) {
        let mut shop = Shop::new(Rules::default(), 2_000);
        let coupon = shop.coupon(Benefit::AmountOff { amount: 100 });
        let before = shop.harness.rows.clone();
        let lines = goods.iter().zip('a'..).map(|((price, units), item)| line(&item.to_string(), *price, *units, 100));
        let order = shop.reserve(lines.collect(), 0, vec![coupon], points);
        let (member_id, order_id) = (shop.member.clone(), order.order_id.clone());
        shop.ask(Command::CancelOrder { member_id, order_id, reason: None });
        let after = &shop.harness.rows;
        prop_assert_eq!(&after.coupons, &before.coupons);
        prop_assert_eq!(&after.lots, &before.lots);
        prop_assert_eq!(&after.templates, &before.templates);
        let key = (TENANT, shop.member.clone());
        prop_assert_eq!(after.accounts[&key].available, before.accounts[&key].available);
        shop.harness.check_all();
    }
}
