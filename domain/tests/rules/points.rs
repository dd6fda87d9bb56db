//! The points ledger as scenarios. The language is that of [`crate::script`].

use std::collections::BTreeSet;

use scrip_domain::coupon::{CompensationStatus, CouponStatus};
use scrip_domain::order::OrderStatus;
use scrip_domain::points::HoldStatus;
use scrip_domain::{Day, Rejection, Timestamp};

use crate::coupons::scenarios;

scenarios! {
    /// Complaint: expiry added later does not know what it may take (odoo PR 206048). Lots are there from the first grant on.
    a_grant_makes_a_lot_and_a_line: "
        @3  g = grant m1 100 until 50 for o-1   => EARN_ORDER points=100 before=0 after=100 sequence=1 expires_at=50 reference=o-1 lot=new from=
            show lot g                          => points=100 remaining=100 available_from=3 expires_at=50
            grant m1 5                          => before=100 after=105 sequence=2 expires_at=none
            grant m1 5 as EARN_ADMIN            => EARN_ADMIN
            grant m1 5 as EARN_CHECKIN          => EARN_CHECKIN
            grant m1 5 as EARN_TASK             => EARN_TASK
            show account m1                     => total=120 available=120 frozen=0 used=0 expired=0 revoked=0 debt=0 sequence=5 created_at=3
            ledger m1                           => EARN_ORDER+100@3 EARN_ORDER+5@3 EARN_ADMIN+5@3 EARN_CHECKIN+5@3 EARN_TASK+5@3
    "

    an_account_from_elsewhere_is_taken_over_as_if_it_had_happened_here: "
        @30  i = take-over m1 +100@1/20 +50@2 -30@3 h20@4 r^3@5 h10@6 c^5@6 b5^2@7 d4@8 => total=150 available=50 frozen=0 used=35 expired=61 revoked=4 steps=9
             show account m1           => total=150 available=50 used=35 expired=61 revoked=4 sequence=10 created_at=1
             ledger m1                 => EARN_ORDER+100@1 EARN_ORDER+50@2 USE_ORDER-30@3 HOLD-20@4 RELEASE+20@5 HOLD-10@6 USE_ORDER-10@6 REFUND+5@7 DEDUCT_ADMIN-4@8 EXPIRE-61@20
    "

    /// What was owed elsewhere is owed here, and settled by what is earned next.
    debts_are_taken_over_with_the_account: "
        @9   take-over m1 +100@1 -80@2 d20@3 o60^0@3   => total=100 available=0 used=80 revoked=20
             show account m1                           => debt=60 available=0
             grant m1 50                               => ok
             show account m1                           => debt=10 available=0 revoked=70
             grant m1 50                               => ok
             show account m1                           => debt=0 available=40
             take-over m2 +100@1 -80@2 o60^1@3         => POINTS_NOT_REVERSIBLE
             take-over m2 +100@1 -80@2 o101^0@3        => POINTS_REVERSAL_EXCEEDS
    "

    a_hold_of_an_account_from_elsewhere_may_name_its_grant_and_ends_by_command: "
        @9   take-over m1 +100@1/90 +50@2 h20^1@3 => available=130 frozen=20
        @10  debit m1 130              => after=0
        @99  show account m1           => frozen=20 available=0 used=130
    "

    an_account_is_taken_over_once_and_only_if_it_has_no_line_here: "
        @9   take-over m1 +100@1       => available=100
             take-over m1 +100@1       => POINTS_ACCOUNT_EXISTS
             grant m2 1                => ok
             take-over m2 +100@1       => POINTS_ACCOUNT_EXISTS
             B: take-over m2 +100@1    => available=100
             show account m1           => total=100 sequence=1
    "

    what_does_not_reconcile_is_not_taken_over_at_all: "
        @9   take-over m1 +100@1 -30@2 expecting 71  => POINTS_IMPORT_UNRECONCILED
             take-over m1 +100@2 -30@1               => POINTS_IMPORT_UNRECONCILED
             take-over m1 +100@10                    => POINTS_IMPORT_UNRECONCILED
             take-over m1                            => POINTS_IMPORT_UNRECONCILED
             take-over m1 +0@1                       => POINTS_IMPORT_UNRECONCILED
             take-over m1 +100@1 -101@2              => POINTS_INSUFFICIENT available=100 requested=101
             take-over m1 +100@1/3 -10@3             => POINTS_INSUFFICIENT available=0
             take-over m1 +100@2/2                   => DEADLINE_PASSED
             take-over m1 +100@1 r^0@2               => POINTS_HOLD_NOT_FOUND
             take-over m1 +100@1 h5@1 r^1@2 c^1@3    => POINTS_HOLD_CLOSED
             take-over m1 +100@1 h101^0@2            => POINTS_INSUFFICIENT
             take-over m1 +100@1 h10^1@2             => POINTS_INSUFFICIENT
             take-over m1 +100@1 b5^0@2              => POINTS_NOT_REVERSIBLE
             take-over m1 +100@1 b5^1@2              => POINTS_TRANSACTION_NOT_FOUND
             take-over m1 +100@1 -10@1 b11^1@2       => POINTS_REVERSAL_EXCEEDS
             take-over m1 +100@1                     => total=100
    "

    a_refund_elsewhere_of_points_that_had_expired_expires_at_once: "
        @9   take-over m1 +100@1/5 -30@2 b30^1@6  => total=100 available=0 used=0 expired=100
             ledger m1                            => EARN_ORDER+100@1 USE_ORDER-30@2 EXPIRE-70@5 REFUND+30@6 EXPIRE-30@6
    "

    reminders_are_told_once_for_each_lot_and_number_of_days: "
        @0   a = grant m1 10 until 30              => ok
             b = grant m1 20 until 40              => ok
             c = grant m2 5 until 30               => ok
             d = grant m2 5 until 31               => ok
             debit m2 5                            => from=c:5
        @6   remind 1 6..30 a,b,c,d                => told=1
             events a                              => points.granted@0 points.expiring@6
             remind 1 6..30 a                      => POINTS_REMINDERS_TOLD
             remind 1 30..30 a                     => POINTS_REMINDERS_TOLD
        @7   remind 1 30..40 a,b,c,d,b             => told=2
             remind 7 7..40 a,b,nobody             => told=2
             B: remind 1 7..40 a                   => told=0
        @30  grant m1 1                            => after=21
             remind 30 1..40 a                     => told=0
    "

    a_grant_must_expire_later_than_it_comes: "
        @5  grant m1 10 until 5    => DEADLINE_PASSED
            grant m1 10 until 4    => DEADLINE_PASSED
            grant m1 10 until 6-   => ok
            show account m1        => total=10 sequence=1
    "

    debits_take_the_soonest_expiring_then_the_oldest_and_the_never_expiring_last: "
        @0  never = grant m1 10            => ok
        @1  late = grant m1 10 until 50    => ok
        @2  soon = grant m1 10 until 20    => ok
        @3  soon2 = grant m1 10 until 20   => ok
        @4  never2 = grant m1 10           => ok
            debit m1 5                     => USE_ORDER points=-5 before=50 after=45 from=soon:5 lot=none
            debit m1 7                     => from=soon:5,soon2:2
            debit m1 8                     => from=soon2:8
            debit m1 12                    => from=late:10,never:2
            debit m1 9                     => from=never:8,never2:1
            show account m1                => total=50 available=9 used=41
            debit m1 10                    => POINTS_INSUFFICIENT available=9 requested=10
            debit m1 9                     => after=0 from=never2:9
            debit m1 1                     => POINTS_INSUFFICIENT available=0 requested=1
    "

    lots_of_one_instant_are_taken_in_the_order_they_were_made: "
        @0  a = grant m1 1 until 9   => ok
            b = grant m1 1 until 9   => ok
            c = grant m1 1 until 9   => ok
            debit m1 3               => from=a:1,b:1,c:1
    "

    a_debit_by_an_operator_revokes: "
        @0  g = grant m1 10              => ok
            debit m1 4 as DEDUCT_ADMIN   => DEDUCT_ADMIN points=-4
            debit m1 1 as USE_COUPON     => USE_COUPON
            debit m1 1 as USE_PRODUCT    => USE_PRODUCT
            show account m1              => total=10 available=4 used=2 revoked=4
            show lot g                   => remaining=4 used=2 revoked=4
    "

    a_lot_is_unspendable_at_the_very_instant_it_expires: "
        @0   a = grant m1 10 until 5      => ok
             b = grant m2 10 until 5      => ok
        @5-  debit m1 4                   => after=6
             debit m2 4                   => after=6
        @5   debit m1 1                   => POINTS_INSUFFICIENT available=0 requested=1
             hold m2 1                    => POINTS_INSUFFICIENT available=0 requested=1
        # A refusal still writes what time had decided.
             show account m1              => total=10 available=0 used=4 expired=6
             ledger m1                    => EARN_ORDER+10@0 USE_ORDER-4@5- EXPIRE-6@5
             show lot b                   => remaining=0 used=4 expired=6
    "

    /// FloCafe#78 and the origin's sweep: expiry took the gross amount, though most of it was spent.
    expiry_takes_what_is_left_of_a_lot_and_no_more: "
        @0   a = grant m1 100 until 24   => ok
        @1   debit m1 80                 => from=a:80
        @2   b = grant m1 100 until 216  => ok
        @24  expire m1                   => holds=0 points=20
             show account m1             => total=200 available=100 used=80 expired=20
             show lot a                  => points=100 remaining=0 used=80 expired=20
        @216 expire m1                   => points=100
             show account m1             => available=0 used=80 expired=120
    "

    /// kademi#4304: expired points that no debit showed. Each is a line of the ledger, and an event.
    expiry_is_posted_once_and_dated_when_it_was_due: "
        @0   a = grant m1 10 until 5    => ok
             b = grant m1 20 until 7    => ok
             c = grant m1 30 until 9    => ok
        @8   expire m1                  => holds=0 points=30
             expire m1                  => holds=0 points=0
        @20  grant m1 1                 => before=0 after=1
             ledger m1                  => EARN_ORDER+10@0 EARN_ORDER+20@0 EARN_ORDER+30@0 EXPIRE-10@5 EXPIRE-20@7 EXPIRE-30@9 EARN_ORDER+1@20
             events m1                  => points.granted@0 points.granted@0 points.granted@0 points.expired@5 points.expired@7 points.expired@9 points.granted@20
             expire nobody              => holds=0 points=0
    "

    /// blnk#181: held points that were spent as well. What is available is what is posted without the holds, always.
    a_hold_sets_points_aside: "
        @0  a = grant m1 300 until 50            => ok
            b = grant m1 200                     => ok
        @1  h = hold m1 350 until 9 for o-1      => OPEN points=350 captured=0 released=0 available=150 from=a:300,b:50 expires_at=9 reference=o-1
            show account m1                      => available=150 frozen=350 used=0
            show lot a                           => remaining=0 held=300
            debit m1 151                         => POINTS_INSUFFICIENT available=150 requested=151
            hold m1 151                          => POINTS_INSUFFICIENT available=150 requested=151
            debit m1 150                         => from=b:150
        @2  release h                            => RELEASED released=350 captured=0 available=350 closed_at=2
            show account m1                      => available=350 frozen=0 used=150
            show lot a                           => remaining=300 held=0
            ledger m1                            => EARN_ORDER+300@0 EARN_ORDER+200@0 HOLD-350@1 USE_ORDER-150@1 RELEASE+350@2
            events h                             => points.held@1 points.released@2
    "

    a_hold_must_end_later_than_it_begins: "
        @5  grant m1 10             => ok
            hold m1 5 until 5       => DEADLINE_PASSED
            hold m1 50 until 5      => DEADLINE_PASSED
            hold m1 5 until 6-      => OPEN
    "

    a_capture_takes_all_by_default: "
        @0  g = grant m1 100           => ok
            h = hold m1 60             => OPEN expires_at=never
        @1  u = capture h              => CAPTURED captured=60 released=0 available=40 closed_at=1
            show account m1            => available=40 frozen=0 used=60
            show lot g                 => remaining=40 held=0 used=60
            ledger m1                  => EARN_ORDER+100@0 HOLD-60@0 USE_ORDER-60@1
            events h                   => points.held@0 points.captured@1
    "

    a_partial_capture_gives_the_rest_back: "
        @0  a = grant m1 10 until 50       => ok
            b = grant m1 10                => ok
            h = hold m1 15                 => from=a:10,b:5
            capture h 16                   => POINTS_CAPTURE_EXCEEDS_HOLD held=15
        @1  capture h 4                    => CAPTURED captured=4 released=11 available=16
            show account m1                => available=16 frozen=0 used=4 total=20
            show lot a                     => remaining=6 held=0 used=4
            show lot b                     => remaining=10 held=0 used=0
            ledger m1                      => EARN_ORDER+10@0 EARN_ORDER+10@0 HOLD-15@0 USE_ORDER-4@1 RELEASE+11@1
    "

    a_capture_keeps_the_balance_and_lowers_what_is_frozen: "
        @0  grant m1 100          => after=100 frozen=0
            hold m1 10            => available=90
            h = hold m1 30        => available=60
            u = capture h 10      => available=80
            reverse u             => REFUND points=10 before=80 after=90 frozen=10
    "

    /// blnk PR 171, PR 315: a hold committed or given back twice.
    a_hold_ends_once: "
        @0  grant m1 100       => ok
            h = hold m1 10     => OPEN
            i = hold m1 10     => OPEN
            j = hold m1 10     => OPEN
            capture h          => CAPTURED
            release i          => RELEASED
            capture h          => POINTS_HOLD_CLOSED status=Captured
            release h          => POINTS_HOLD_CLOSED status=Captured
            capture i          => POINTS_HOLD_CLOSED status=Released
            release i          => POINTS_HOLD_CLOSED status=Released
            capture x          => POINTS_HOLD_NOT_FOUND
            release x          => POINTS_HOLD_NOT_FOUND
            B: capture j       => POINTS_HOLD_NOT_FOUND
            B: release j       => POINTS_HOLD_NOT_FOUND
            show hold j        => OPEN
            show account m1    => available=80 frozen=10 used=10
    "

    a_hold_ends_at_its_deadline: "
        @0   g = grant m1 10        => ok
             h = hold m1 8 until 5  => OPEN
             i = hold m1 2 until 5  => OPEN
        @5-  capture h 1            => CAPTURED
        @5   capture i              => POINTS_HOLD_EXPIRED status=Expired
        @9   release i              => POINTS_HOLD_EXPIRED
             debit m1 9             => after=0
             show hold i            => EXPIRED released=2 closed_at=5
             ledger m1              => EARN_ORDER+10@0 HOLD-8@0 HOLD-2@0 USE_ORDER-1@5- RELEASE+7@5- RELEASE+2@5 USE_ORDER-9@9
             events i               => points.held@0 points.released@5
    "

    overdue_holds_and_lots_are_written_in_the_order_of_time: "
        @0   a = grant m1 10 until 3      => ok
             b = grant m1 10 until 20     => ok
             c = grant m1 10 until 5      => ok
             d = grant m1 10 until 12     => ok
        # Takes all of a and the whole of c.
             h = hold m1 20 until 10      => from=a:10,c:10
             i = hold m1 10 until 15      => from=d:10
        @30  expire m1                    => holds=2 points=40
             ledger m1                    => EARN_ORDER+10@0 EARN_ORDER+10@0 EARN_ORDER+10@0 EARN_ORDER+10@0 HOLD-20@0 HOLD-10@0 RELEASE+20@10 EXPIRE-10@10 EXPIRE-10@10 RELEASE+10@15 EXPIRE-10@15 EXPIRE-10@20
    "

    a_free_lot_expires_before_a_hold_that_ends_later: "
        @0   a = grant m1 5 until 3       => ok
             b = grant m1 5               => ok
             h = hold m1 5 until 2        => from=a:5
             i = hold m1 5 until 10       => from=b:5
        @20  expire m1                    => holds=2 points=5
             ledger m1                    => EARN_ORDER+5@0 EARN_ORDER+5@0 HOLD-5@0 HOLD-5@0 RELEASE+5@2 EXPIRE-5@3 RELEASE+5@10
    "

    a_held_lot_is_protected_and_expires_when_the_hold_ends: "
        @0  g = grant m1 100 until 5     => ok
            h = hold m1 60 until 20      => ok
            i = hold m1 30 until 20      => ok
        @9  expire m1                    => holds=0 points=10
            show lot g                   => remaining=0 held=90 expired=10
            capture h 20                 => CAPTURED available=0
            show account m1              => available=0 frozen=30 used=20 expired=50
        @10 release i                    => RELEASED available=0
            show account m1              => available=0 frozen=0 used=20 expired=80 total=100
            ledger m1                    => EARN_ORDER+100@0 HOLD-60@0 HOLD-30@0 EXPIRE-10@5 USE_ORDER-20@9 RELEASE+40@9 EXPIRE-40@9 RELEASE+30@10 EXPIRE-30@10
    "

    refunds_restore_the_lots_in_the_order_they_were_taken: "
        @0  a = grant m1 10 until 50          => ok
            b = grant m1 10 until 60          => ok
            c = grant m1 10                   => ok
            d = debit m1 25 for o-9           => from=a:10,b:10,c:5
            reverse d 4                       => REFUND points=4 before=5 after=9 from=a:4 lot=none reference=o-9
            reverse d 8                       => from=a:6,b:2
            reverse d 14                      => POINTS_REVERSAL_EXCEEDS left=13
            reverse d                         => points=13 from=b:8,c:5 after=30
            reverse d                         => POINTS_REVERSAL_EXCEEDS left=0
            reverse d 1                       => POINTS_REVERSAL_EXCEEDS left=0
            show account m1                   => total=30 available=30 used=0
            show lot b                        => remaining=10 used=0 expires_at=60
    "

    a_reversal_undoes_one_point_or_more: "
        @0  grant m1 10         => ok
            d = debit m1 5      => ok
            reverse d 0         => POINTS_REVERSAL_EXCEEDS left=5
            reverse d -1        => POINTS_REVERSAL_EXCEEDS left=5
            reverse d 6         => POINTS_REVERSAL_EXCEEDS left=5
            reverse d 5         => after=10
    "

    only_grants_and_debits_are_reversible: "
        @0  g = grant m1 100                    => ok
            h = hold m1 10                      => ok
            reverse h                           => POINTS_NOT_REVERSIBLE
            l = release h                       => ok
            reverse l                           => POINTS_NOT_REVERSIBLE
            d = debit m1 10                     => ok
            r = reverse d 5                     => REFUND
            reverse r                           => POINTS_NOT_REVERSIBLE
            w = reverse g 5                     => CLAWBACK
            reverse w                           => POINTS_NOT_REVERSIBLE
            reverse x                           => POINTS_TRANSACTION_NOT_FOUND
            B: reverse d                        => POINTS_TRANSACTION_NOT_FOUND
    "

    a_transaction_is_known_to_its_own_member_only: "
        @0  grant m2 10                  => ok
            g = grant m1 10              => ok
            reverse y of m2              => POINTS_TRANSACTION_NOT_FOUND
            reverse g                    => CLAWBACK
    "

    /// Tenant A gives 7 days of grace.
    a_refund_into_an_expired_lot_makes_a_grace_lot: "
        @0    a = grant m1 10 until 24              => ok
              b = grant m1 10                       => ok
              d = debit m1 15                       => from=a:10,b:5
        @24-  reverse d 2                           => from=a:2 lot=none
        @24   r = reverse d                         => REFUND points=13 before=5 after=18 from=b:5,r:8 lot=new
        # The two points restored in time have expired with their lot.
              show lot a                            => points=10 remaining=0 used=0 expired=2 moved=8
              show lot r                            => points=8 remaining=8 available_from=24 expires_at=192
              show account m1                       => total=20 available=18 used=0 expired=2
        @192- debit m1 8                            => from=r:8
        @192  debit m1 10                           => from=b:10
    "

    a_grace_lot_can_be_spent_and_refunded_again: "
        @0    a = grant m1 10 until 24     => ok
              d = debit m1 10              => ok
        @30   r = reverse d                => from=r:10
              e = debit m1 10              => from=r:10
        @300  s = reverse e                => from=s:10
              show lot r                   => points=10 moved=10 used=0
              show account m1              => total=10 available=10
        @999  expire m1                    => points=10
              show account m1              => total=10 available=0 expired=10
    "

    without_grace_a_refund_into_an_expired_lot_expires_at_once: "
        @0   B: a = grant m1 10 until 24          => ok
             B: b = grant m1 10                   => ok
             B: d = debit m1 15                   => from=a:10,b:5
        @24- B: reverse d 1                       => after=6
        @24  B: reverse d                         => REFUND points=14 before=5 after=19 lot=none from=a:9,b:5
             B: show account m1                   => total=20 available=10 used=0 expired=10
             B: show lot a                        => remaining=0 used=0 expired=10 moved=0
             B: ledger m1                         => EARN_ORDER+10@0 EARN_ORDER+10@0 USE_ORDER-15@0 REFUND+1@24- EXPIRE-1@24 REFUND+14@24 EXPIRE-9@24
        @30  B: c = grant m2 5 until 40           => ok
             B: e = debit m2 5                    => ok
        @50  B: reverse e                         => after=5
             B: ledger m2                         => EARN_ORDER+5@30 USE_ORDER-5@30 REFUND+5@50 EXPIRE-5@50
    "

    reversing_an_operators_deduction_gives_back_what_was_revoked: "
        @0   g = grant m1 10 until 24                => ok
             d = debit m1 6 as DEDUCT_ADMIN          => ok
             reverse d 2                             => REFUND from=g:2
             show account m1                         => available=6 used=0 revoked=4 total=10
             show lot g                              => remaining=6 revoked=4
        @30  r = reverse d                           => from=r:4
             show account m1                         => available=4 expired=6 revoked=0 total=10
             show lot g                              => expired=6 revoked=0 moved=4
    "

    a_capture_is_refunded_like_a_debit: "
        @0  a = grant m1 10 until 50   => ok
            b = grant m1 10            => ok
            h = hold m1 15 for o-1     => from=a:10,b:5
            u = capture h 12           => captured=12
            reverse u 11               => REFUND from=a:10,b:1 reference=o-1
            reverse u                  => REFUND points=1 from=b:1
            show account m1            => available=20 used=0 frozen=0
    "

    a_claw_back_takes_the_grants_own_lot_first: "
        @0  a = grant m1 10 until 20     => ok
            b = grant m1 10 until 30     => ok
            c = grant m1 10              => ok
            reverse c 4                  => CLAWBACK points=-4 before=30 after=26 from=c:4 debt=0
            debit m1 15                  => from=a:10,b:5
            reverse c 6                  => from=c:6 after=5
            show account m1              => total=30 available=5 used=15 revoked=10 debt=0
            show lot c                   => remaining=0 revoked=10
            reverse c                    => POINTS_REVERSAL_EXCEEDS left=0
    "

    a_claw_back_then_takes_other_lots_in_spending_order: "
        @0  a = grant m1 10 until 20     => ok
            b = grant m1 10              => ok
            c = grant m1 10 until 10     => ok
            d = debit m1 7               => from=c:7
            reverse c                    => points=-10 from=c:3,a:7 after=13 debt=0
            reverse d                    => from=c:7
            show account m1              => total=30 available=20 used=0 revoked=10
    "

    /// odoo PR 212922, 221928, PrestaShop loyalty PR 23: points of a returned purchase that were spent already.
    what_a_claw_back_cannot_take_is_owed: "
        @0  a = grant m1 100                   => ok
            debit m1 70                        => ok
        @1  reverse a 40                       => CLAWBACK points=-30 before=30 after=0 from=a:30 debt=10
            reverse a                          => CLAWBACK points=0 before=0 after=0 from= debt=70
            show account m1                    => total=100 available=0 used=70 revoked=30 debt=70
        @2  b = grant m1 50                    => points=50 before=0 after=50 debt=70
            show account m1                    => total=150 available=0 used=70 revoked=80 debt=20
            show lot b                         => remaining=0 revoked=50
            c = grant m1 50                    => ok
            show account m1                    => total=200 available=30 revoked=100 debt=0
            ledger m1                          => EARN_ORDER+100@0 USE_ORDER-70@0 CLAWBACK-30@1 CLAWBACK+0@1 EARN_ORDER+50@2 CLAWBACK-50@2 EARN_ORDER+50@2 CLAWBACK-20@2
            events m1                          => points.granted@0 points.debited@0 points.reversed@1 points.reversed@1 points.granted@2 points.debt_settled@2 points.granted@2 points.debt_settled@2
            debit m1 31                        => POINTS_INSUFFICIENT available=30 requested=31
    "

    what_a_claw_back_cannot_take_is_forgiven_where_the_rules_say_so: "
        @0  rules 0 forgive                    => version=1
            a = grant m1 100                   => rules=none
            d = debit m1 70                    => rules=none
        @1  reverse a 40                       => CLAWBACK points=-30 before=30 after=0 from=a:30 debt=0 forgiven=10 rules=1
        # What was forgiven is undone: it is not asked for again, and no later grant pays it.
            reverse a                          => CLAWBACK points=0 before=0 after=0 from= debt=0 forgiven=60
            reverse a                          => POINTS_REVERSAL_EXCEEDS left=0
            show account m1                    => total=100 available=0 used=70 revoked=30 debt=0
        @2  grant m1 50                        => before=0 after=50 debt=0 forgiven=0
            reverse d                          => REFUND after=120 forgiven=0 rules=none
            show account m1                    => total=150 available=120 used=0 revoked=30 debt=0
            events m1                          => points.granted@0 points.debited@0 points.reversed@1 points.reversed@1 points.granted@2 points.reversed@2
    "

    the_rules_that_hold_at_a_claw_back_say_what_becomes_of_the_rest: "
        @0  a = grant m1 100                   => ok
            debit m1 100                       => ok
        @1  reverse a 10                       => debt=10 forgiven=0 rules=0
            rules 0 forgive from 5             => version=1
        @2  reverse a 10                       => debt=20 forgiven=0 rules=0
        @5  reverse a 10                       => debt=20 forgiven=10 rules=1
            reverse a 10 at 4                  => debt=30 forgiven=0 rules=0
            rules 1                            => version=2
        @6  reverse a                          => debt=90 forgiven=0 rules=2
        # A debt stays one, whatever the rules say later.
            rules 2 forgive                    => version=3
            grant m1 100                       => debt=90
            show account m1                    => available=10 debt=0
    "

    what_a_merged_account_lacks_is_not_forgiven: "
        @0  rules 0 forgive                    => version=1
            g = grant m1 30                    => ok
            debit m1 10                        => ok
            merge m1 m2                        => received=20
        # It is the other member's now, from whom the next merge takes it.
            reverse g                          => CLAWBACK points=0 debt=30 forgiven=0 rules=1
            merge m1 m2                        => received=0 debt=30
            show account m2                    => available=0 revoked=20 debt=10
    "

    a_refund_does_not_settle_debt_only_earnings_do: "
        @0  a = grant m1 10       => ok
            d = debit m1 10       => ok
            reverse a             => debt=10
            reverse d             => after=10 debt=10
            show account m1       => available=10 used=0 debt=10 total=10
            grant m1 4            => ok
            show account m1       => available=10 revoked=4 debt=6 total=14
    "

    a_claw_back_leaves_held_points_alone: "
        @0  a = grant m1 10            => ok
            h = hold m1 6              => ok
            reverse a                  => points=-4 debt=6 frozen=6
            release h                  => available=6
            show account m1            => available=6 revoked=4 debt=6
    "

    held_points_are_not_there_when_a_claw_back_forgives: "
        @0  rules 0 forgive            => version=1
            a = grant m1 10            => ok
            h = hold m1 6              => ok
            reverse a                  => points=-4 debt=0 forgiven=6 frozen=6
            release h                  => available=6
            show account m1            => available=6 revoked=4 debt=0
    "

    a_debit_never_makes_debt: "
        @0  grant m1 5                 => ok
            debit m1 6                 => POINTS_INSUFFICIENT
            debit m1 6 as DEDUCT_ADMIN => POINTS_INSUFFICIENT
            debit nobody 1             => POINTS_INSUFFICIENT available=0 requested=1
            show account m1            => available=5 debt=0
    "

    a_life_of_points_has_a_limit: "
        @0  grant m1 4611686018427387903  => ok
            grant m1 2                    => POINTS_OVERFLOW
            grant m1 1                    => after=4611686018427387904
            grant m1 1                    => POINTS_OVERFLOW
        # Spending does not make room: the total is what was ever earned.
            d = debit m1 4611686018427387904  => after=0
            grant m1 1                    => POINTS_OVERFLOW
            grant m1 9223372036854775807  => POINTS_OVERFLOW
        # And a refund never needs any.
            reverse d                     => after=4611686018427387904
            show account m1               => total=4611686018427387904 used=0
    "

    a_backdated_command_sees_no_lot_of_later: "
        @10  a = grant m1 10                => ok
             b = grant m1 10 at 5           => recorded=10
             debit m1 11 at 7               => POINTS_INSUFFICIENT available=10 requested=11
             debit m1 10 at 5-              => POINTS_INSUFFICIENT available=0 requested=10
             debit m1 4 at 5                => from=b:4
             show account m1                => created_at=10 updated_at=10
             grant m1 5 until 8 at 6        => expires_at=8
             debit m1 11                    => from=b:6,a:5
             ledger m1                      => EARN_ORDER+10@10 EARN_ORDER+10@5 USE_ORDER-4@5 EARN_ORDER+5@6 EXPIRE-5@8 USE_ORDER-11@10
             show account m1                => created_at=10 updated_at=10
    "

    replays_of_points_commands_move_nothing: "
        @0  g = grant m1 100 key k1             => after=100
            d = debit m1 60 key k2              => after=40
            h = hold m1 40 until 5 key k3       => OPEN available=0
            debit m1 1 key k4                   => POINTS_INSUFFICIENT
        @9  hold m1 40 until 5 key k3           => replayed OPEN available=0
            debit m1 60 key k2                  => replayed after=40 sequence=2
            grant m1 100 key k1                 => replayed after=100 sequence=1
            debit m1 60 key k2 other            => IDEMPOTENCY_KEY_REUSED
            show account m1                     => available=0 frozen=40 sequence=3
            debit m1 1 key k4                   => after=39
            reverse d 10 key k5                 => after=49
            reverse d 10 key k5                 => replayed after=49
            show account m1                     => available=49 used=51
    "

    a_sweep_is_recorded_under_its_key: "
        @0  sweep 5 key k1         => points=5
            sweep 0 key k1         => replayed points=5
            sweep 0 key k1 other   => IDEMPOTENCY_KEY_REUSED
    "

    members_and_tenants_have_accounts_of_their_own: "
        @0  grant m1 10          => after=10
            B: grant m1 5        => before=0 after=5
            grant m2 1           => before=0
            B: debit m1 6        => POINTS_INSUFFICIENT available=5 requested=6
            show account m1      => total=10
            B: show account m1   => total=5
    "

    freezing_and_settling_as_the_origin_figures_say: "
        @0  grant m1 500         => ok
            h = hold m1 200      => OPEN available=300
            show account m1      => available=300 frozen=200
            release h            => available=500
            show account m1      => available=500 frozen=0
            i = hold m1 200      => ok
            capture i            => ok
            show account m1      => available=300 frozen=0 used=200
    "
}

#[test]
fn a_hundred_debits_of_ten_empty_an_account_of_a_thousand() {
    let debits: String = (0..100).map(|n| format!("debit m1 10 => sequence={}\n", n + 2)).collect();
    crate::script::run(&format!(
        "@0 grant m1 1000 => ok\n{debits}\ndebit m1 1 => POINTS_INSUFFICIENT\nshow account m1 => available=0 used=1000 sequence=101"
    ));
}

#[test]
fn of_a_thousand_debits_of_ten_five_hundred_fit_into_five_thousand() {
    let debits: String = (0..1000)
        .map(|n| format!("debit m1 10 => {}\n", if n < 500 { "ok" } else { "POINTS_INSUFFICIENT available=0" }))
        .collect();
    crate::script::run(&format!("@0 grant m1 5000 => ok\n{debits}\nshow account m1 => available=0 used=5000"));
}

/// More lots than a batch loads at first, some of them due.
#[test]
fn an_account_of_many_lots_is_spent_in_order_whatever_is_loaded() {
    let grants: String = (0..600).map(|n| format!("l{n} = grant m1 1 until {} => ok\n", 1000 - n)).collect();
    let harness = crate::script::run(&format!(
        "@0   never = grant m1 1000 => ok
              v = hold m1 1 until 400 => from=never:1
         {grants}
         @1   d = debit m1 2 => from=l599:1,l598:1
              w = hold m1 598 => ok
              u = capture w 300 => available=1297
         @410 debit m1 700 => after=598
              show account m1 => total=1600 expired=0
         @700 reverse d => lot=new
              show account m1 => available=600 used=1000 expired=0
              debit m1 601 => POINTS_INSUFFICIENT available=600 requested=601
              debit m1 600 => after=0"
    ));
    assert!(harness.asked_for_lots > 0);
}

/// A hold on a late lot brings that lot along; the lots between the first page and it must still be spent first.
#[test]
fn a_lot_that_a_hold_brings_along_is_not_spent_before_its_turn() {
    let grants: String = (0..300).map(|n| format!("l{n} = grant m1 1 until {} => ok\n", 10 + n)).collect();
    crate::script::run(&format!(
        "@0   late = grant m1 1000 => ok
              h = hold m1 10 until 5 => from=late:10
         {grants}
         @6   debit m1 290 => after=1010
              show lot late => remaining=1000 held=0
         @306 g = grant m1 50 => ok
              debit m1 1003 => from=l297:1,l298:1,l299:1,late:1000
              show account m1 => expired=7 available=50"
    ));
}

/// The list of variants is complete because the match below is.
#[test]
fn every_rejection_appears_in_a_scenario() {
    let at = Timestamp(0);
    let all = [
        Rejection::TemplateNotFound,
        Rejection::CouponNotFound,
        Rejection::HoldNotFound,
        Rejection::TransactionNotFound,
        Rejection::TenantNotFound,
        Rejection::KeyNotFound,
        Rejection::WebhookNotFound,
        Rejection::TemplateVersionStale { current: 1 },
        Rejection::TemplateInUse { claimed: 1 },
        Rejection::StockUnlimited,
        Rejection::StockOutOfRange { remaining: 0, max_total: 0 },
        Rejection::TemplateHasCodes { batches: 1 },
        Rejection::TemplateImported,
        Rejection::TemplateArchived,
        Rejection::BudgetBelowCommitted { committed: 1 },
        Rejection::PeriodClosed { period: scrip_domain::time::CapPeriod::Day, since: at },
        Rejection::CapReached { period: scrip_domain::time::CapPeriod::Week, cap: 1, ends_at: at, version: 1 },
        Rejection::CouponNotReturnable,
        Rejection::CodeInUse { uses: 1 },
        Rejection::BudgetExhausted { budget: 1, version: 1 },
        Rejection::TransferToHolder,
        Rejection::CodeNotAccepted,
        Rejection::CodeNotFound,
        Rejection::CodeBatchNotFound,
        Rejection::CodeTaken,
        Rejection::CodeRevoked,
        Rejection::CodeBatchOutOfStep { generated: 1 },
        Rejection::TemplateForPoints { price: 1 },
        Rejection::TemplateNotForPoints,
        Rejection::TemplateDisabled,
        Rejection::ClaimNotStarted { starts_at: None },
        Rejection::ClaimEnded { ended_at: None, version: 1 },
        Rejection::ValidityEnded { ended_at: at },
        Rejection::MemberLevel { allowed: Vec::new() },
        Rejection::ClaimLimitReached { limit: 1, version: 1 },
        Rejection::SoldOut { total: 1, version: 1 },
        Rejection::CouponExpired { valid_until: at },
        Rejection::CouponNotYetValid { valid_from: at },
        Rejection::CouponLocked { order_id: None },
        Rejection::CouponNotLocked,
        Rejection::CouponUsed { order_id: None },
        Rejection::CouponNotUsed { status: CouponStatus::Available },
        Rejection::CouponRevoked,
        Rejection::OrderMismatch,
        Rejection::DeadlinePassed { field: "expires_at" },
        Rejection::PointsInsufficient { available: 0, requested: 1 },
        Rejection::PointsOverflow,
        Rejection::HoldClosed { status: HoldStatus::Captured },
        Rejection::HoldClosed { status: HoldStatus::Expired },
        Rejection::CaptureExceedsHold { held: 1 },
        Rejection::NotReversible,
        Rejection::ReversalExceeds { left: 0 },
        Rejection::RulesVersionStale { current: 1 },
        Rejection::OrderNotFound,
        Rejection::OrderExists { status: OrderStatus::Reserved },
        Rejection::QuoteExpired { expired_at: at },
        Rejection::OrderClosed { status: OrderStatus::Paid },
        Rejection::OrderExpired { expired_at: at, reason: "" },
        Rejection::OrderNotPaid { status: OrderStatus::Cancelled },
        Rejection::OrderItemUnknown { item_id: String::new() },
        Rejection::RefundExists,
        Rejection::RefundExceeds { item_id: String::new(), left: 1 },
        Rejection::RefundExceedsFreight { left: 1 },
        Rejection::NothingToRefund,
        Rejection::ManagedByOrder { order_id: String::new() },
        Rejection::CompensationNotFound,
        Rejection::CompensationClosed { status: CompensationStatus::Resolved },
        Rejection::TaskNotFound,
        Rejection::HoldPending { available_from: at },
        Rejection::ExpiresBeforeAvailable,
        Rejection::AccountMerged { into: "m".parse().expect("a member") },
        Rejection::SameMember,
        Rejection::InDebt { debt: 1 },
        Rejection::HoldsOpen { points: 1 },
        Rejection::AccountExists,
        Rejection::ImportUnreconciled,
        Rejection::RemindersTold,
        Rejection::AdjustmentNotFound,
        Rejection::AdjustmentClosed { status: scrip_domain::points::AdjustmentStatus::Approved },
        Rejection::OwnAdjustment,
        Rejection::ApprovalNeeded { above: 1 },
        Rejection::CheckInDisabled,
        Rejection::CheckInOutOfOrder { latest: Day(0) },
        Rejection::CheckInDayNotPast { today: Day(0) },
        Rejection::MakeUpDisabled,
        Rejection::MakeUpTooLate { earliest: Day(0) },
        Rejection::MakeUpLimitReached { limit: 1 },
        Rejection::TaskExists,
        Rejection::TaskVersionStale { current: 1 },
        Rejection::TaskDisabled,
        Rejection::TaskNotStarted { starts_at: None },
        Rejection::TaskEnded { ended_at: None },
        Rejection::TaskPeriodLimitReached { limit: 1 },
        Rejection::TaskLimitReached { limit: 1 },
        Rejection::TaskPrerequisitesMissing { missing: Vec::new() },
        Rejection::TaskRequiresUnknown { missing: Vec::new() },
        Rejection::TaskRequiresItself { through: "t".parse().expect("a task") },
        Rejection::IdempotencyKeyReused,
    ];
    for rejection in &all {
        // Adding a variant breaks this match: add it to the list above as well, and a scenario for it.
        match rejection {
            Rejection::TemplateNotFound | Rejection::CouponNotFound | Rejection::HoldNotFound => {}
            Rejection::TransactionNotFound | Rejection::TenantNotFound | Rejection::KeyNotFound => {}
            Rejection::WebhookNotFound => {}
            Rejection::TemplateVersionStale { .. } | Rejection::TemplateInUse { .. } | Rejection::StockUnlimited => {}
            Rejection::StockOutOfRange { .. } | Rejection::TemplateDisabled | Rejection::ClaimNotStarted { .. } => {}
            Rejection::ClaimEnded { .. } | Rejection::ValidityEnded { .. } | Rejection::MemberLevel { .. } => {}
            Rejection::ClaimLimitReached { .. } | Rejection::SoldOut { .. } | Rejection::CouponExpired { .. } => {}
            Rejection::CouponNotYetValid { .. } | Rejection::CouponLocked { .. } | Rejection::CouponNotLocked => {}
            Rejection::CouponUsed { .. } | Rejection::CouponNotUsed { .. } | Rejection::CouponRevoked => {}
            Rejection::OrderMismatch | Rejection::DeadlinePassed { .. } | Rejection::PointsInsufficient { .. } => {}
            Rejection::PointsOverflow | Rejection::HoldClosed { .. } | Rejection::CaptureExceedsHold { .. } => {}
            Rejection::NotReversible | Rejection::ReversalExceeds { .. } | Rejection::IdempotencyKeyReused => {}
            Rejection::TemplateHasCodes { .. }
            | Rejection::TemplateImported
            | Rejection::TemplateArchived
            | Rejection::BudgetBelowCommitted { .. } => {}
            Rejection::PeriodClosed { .. } | Rejection::CapReached { .. } | Rejection::BudgetExhausted { .. } => {}
            Rejection::CouponNotReturnable | Rejection::CodeInUse { .. } => {}
            Rejection::AdjustmentNotFound | Rejection::AdjustmentClosed { .. } | Rejection::OwnAdjustment => {}
            Rejection::ApprovalNeeded { .. } => {}
            Rejection::TemplateForPoints { .. } | Rejection::TemplateNotForPoints => {}
            Rejection::TransferToHolder | Rejection::CodeNotAccepted | Rejection::CodeNotFound => {}
            Rejection::CodeBatchNotFound | Rejection::CodeTaken | Rejection::CodeRevoked => {}
            Rejection::CodeBatchOutOfStep { .. } => {}
            // Those of prices stand in the price tables, not in these scenarios.
            Rejection::CouponOutsideHours | Rejection::CouponConditionUnmet => {}
            Rejection::CouponConditionFailed { .. } => {}
            Rejection::CouponOutOfScope | Rejection::CouponProductMissing | Rejection::CouponWithoutEffect => {}
            Rejection::CouponQuantity { .. } | Rejection::CouponBelowThreshold { .. } => {}
            Rejection::CouponNotStackable { .. } | Rejection::TooManyCoupons { .. } => {}
            Rejection::OrderTooLarge { .. } => {}
            Rejection::RulesVersionStale { .. } | Rejection::RulesTooManyVersions { .. } => {}
            // Those of jobs and bulks are tested in jobs.rs and bulks.rs.
            Rejection::JobNotFound | Rejection::JobLeaseLost | Rejection::BulkNotFound | Rejection::BulkMoved => {}
            Rejection::WindowsAnnounced => {}
            // It has the code of its reason.
            Rejection::InOrder { .. } => {}
            Rejection::OrderNotFound | Rejection::OrderExists { .. } | Rejection::OrderClosed { .. } => {}
            Rejection::QuoteExpired { .. } => {}
            Rejection::OrderExpired { .. } | Rejection::OrderNotPaid { .. } | Rejection::OrderItemUnknown { .. } => {}
            Rejection::RefundExists | Rejection::RefundExceeds { .. } | Rejection::NothingToRefund => {}
            Rejection::RefundExceedsFreight { .. } | Rejection::ManagedByOrder { .. } => {}
            Rejection::CompensationNotFound | Rejection::CompensationClosed { .. } => {}
            Rejection::HoldPending { .. } | Rejection::ExpiresBeforeAvailable | Rejection::AccountMerged { .. } => {}
            Rejection::SameMember | Rejection::InDebt { .. } | Rejection::HoldsOpen { .. } => {}
            Rejection::AccountExists | Rejection::ImportUnreconciled | Rejection::RemindersTold => {}
            Rejection::CheckInDisabled | Rejection::CheckInOutOfOrder { .. } | Rejection::TaskNotFound => {}
            Rejection::CheckInDayNotPast { .. }
            | Rejection::MakeUpDisabled
            | Rejection::MakeUpTooLate { .. }
            | Rejection::MakeUpLimitReached { .. } => {}
            Rejection::TaskExists | Rejection::TaskVersionStale { .. } | Rejection::TaskDisabled => {}
            Rejection::TaskNotStarted { .. } | Rejection::TaskEnded { .. } => {}
            Rejection::TaskPeriodLimitReached { .. } | Rejection::TaskLimitReached { .. } => {}
            Rejection::TaskPrerequisitesMissing { .. } | Rejection::TaskRequiresUnknown { .. } => {}
            Rejection::TaskRequiresItself { .. } => {}
            // It takes a hundred tasks: members.rs has a test of its own.
            Rejection::TaskRequiresTooMany { .. } => {}
            // Likewise programs.rs of what makes them.
            Rejection::TenantIsProgram | Rejection::ProgramExists | Rejection::ProgramLimitReached { .. } => {}
        }
    }
    let codes: BTreeSet<&str> = all.iter().map(Rejection::code).collect();
    assert_eq!(codes.len(), all.len(), "every code says one thing");
    let scenarios = [
        crate::codes::ALL,
        crate::coupons::ALL,
        crate::limits::ALL,
        crate::members::ALL,
        crate::rules::ALL,
        crate::orders::ALL,
        crate::webhooks::ALL,
        ALL,
    ]
    .concat();
    let missing: Vec<_> = codes
        .iter()
        .filter(|code| {
            let lines = scenarios.iter().flat_map(|text| text.lines());
            !lines.filter_map(|line| line.split_once("=> ")).any(|(_, got)| got.split(' ').next() == Some(**code))
        })
        .collect();
    assert!(missing.is_empty(), "no scenario for {missing:?}");
}
