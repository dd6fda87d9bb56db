//! What members do beside orders, as scenarios: points that come later, change hands or accounts; check-ins and tasks. The
//! language is that of [`crate::script`].

use std::sync::Arc;

use scrip_domain::command::Movement;
use scrip_domain::points::{Spendable, TransactionType};
use scrip_domain::task::{Definition, MAX_WALK, Period};
use scrip_domain::tenant::Tenant;
use scrip_domain::time::{Calendar, MICROS_PER_DAY, Window};
use scrip_domain::{Answer, Command, Day, Envelope, IdSeed, MemberId, Outcome, Rejection, TenantId, Timestamp};

use crate::coupons::scenarios;
use crate::harness::Harness;

scenarios! {
    // Complaint: bonus points must not be spendable before the return window is over.
    points_that_come_later_are_frozen_until_then_and_nobody_can_spend_or_release_them: "
        @0   g = grant m1 100 from 10 until 50   => EARN_ORDER points=100 after=100
             show account m1                     => total=100 available=0 frozen=100
             show lot g                          => points=100 remaining=0 held=100 available_from=10 expires_at=50
             debit m1 1                          => POINTS_INSUFFICIENT available=0 requested=1
             hold m1 1                           => POINTS_INSUFFICIENT available=0 requested=1
             give m1 m2 1                    => POINTS_INSUFFICIENT available=0 requested=1
             capture g                           => POINTS_HOLD_PENDING available_from=@10
             release g                           => POINTS_HOLD_PENDING available_from=@10
        @10- debit m1 1                          => POINTS_INSUFFICIENT available=0
        @10  debit m1 40                         => after=60 from=g:40
             ledger m1                           => EARN_ORDER+100@0 HOLD-100@0 RELEASE+100@10 USE_ORDER-40@10
    "

    points_that_expire_by_inactivity_live_on_with_each_active_day: "
        @1    rules 0 live idle:2                => version=1
              c = check-in m1                    => points=10
              show lot c                         => expires_at=72 idle=2
        @23   debit m1 1                         => from=c:1
              show lot c                         => expires_at=72
        @24   debit m1 1                         => from=c:1
        @47   debit m1 1                         => from=c:1
              show lot c                         => expires_at=96
        @96-  debit m1 1                         => from=c:1
              show lot c                         => expires_at=144
        @144- debit m1 1                         => from=c:1
        @192  debit m1 1                         => POINTS_INSUFFICIENT available=0
              ledger m1                          => EARN_CHECKIN+10@1 USE_ORDER-1@23 USE_ORDER-1@24 USE_ORDER-1@47 USE_ORDER-1@96- USE_ORDER-1@144- EXPIRE-5@192
    "

    what_others_do_to_an_account_is_no_activity_of_its_member: "
        @1    rules 0 live idle:2                => version=1
              c = check-in m1                    => points=10
              x = grant m2 9                     => ok
              y = debit m1 1                     => ok
        @30   grant m1 5 as EARN_ADMIN           => ok
              debit m1 1 as DEDUCT_ADMIN         => from=c:1
              give m2 m1 4                       => ok
              reverse y                          => ok
              reverse x 2                        => ok
              h = hold m1 3                      => from=c:3
              i = hold m1 2                      => from=c:2
              release i                          => ok
              show lot c                         => expires_at=72
        @50   capture h 1                        => ok
              show lot c                         => expires_at=120 remaining=8 used=1
    "

    an_order_is_an_activity_when_it_spends_and_when_it_earns: "
        @1    rules 0 earn 1/100 redeem 1/1 live idle:2  => version=1
              c = check-in m1                            => points=10
        @30   o = reserve b1 m1 1000x1 points 4          => spent=4 earns=10
              show lot c                                 => expires_at=72 held=4
        @50   p = pay o                                  => granted=10
              show lot c                                 => expires_at=120 used=4
              show lot p                                 => expires_at=120 idle=2
        @80   n = reserve b2 m1 1000x1                   => earns=10
        @100  refund o r1 full                           => returned=4 clawed=10
              show lot c                                 => expires_at=120 used=0
              q = pay n                                  => granted=10
              show lot c                                 => expires_at=168
              show lot q                                 => expires_at=168
    "

    a_task_is_an_activity_when_it_is_completed: "
        @1    rules 0 live idle:1                => version=1
              c = check-in m1                    => points=10
              task t target 2                    => ok
        @30   report t m1 a                      => step=1/2
              show lot c                         => expires_at=48
        @31   r = report t m1 b                  => step=2/2
              show lot c                         => expires_at=72
              show lot r                         => expires_at=72 idle=1
    "

    what_has_expired_by_inactivity_stays_expired: "
        @1    rules 0 live idle:2                => version=1
              c = check-in m1                    => points=10
              h = hold m1 4                      => from=c:4
        @80   capture h 2                        => ok
              show lot c                         => expires_at=72 used=2 expired=8
        # Told late: the account has no line behind its end yet, so the member was in time after all.
        @100  d = check-in m2 at 1               => ok
              debit m2 1 at 60                   => from=d:1
              show lot d                         => expires_at=120
        # Nor does what is told late revive what a later line has found at its end.
              e = check-in m3 at 1               => ok
              hold m3 4 at 2                     => from=e:4
              grant m3 5 as EARN_ADMIN at 90     => ok
              grant m3 5 at 50                   => ok
              show lot e                         => expires_at=72 held=4 expired=6
    "

    // The first activity of the day has moved the ends before the lot was there.
    what_is_earned_by_a_late_report_lives_by_the_next_activity: "
        @1    rules 0 live idle:2                => version=1
              task t                             => ok
        @100  a = check-in m1                    => points=10
              b = report t m1 r at 60            => points=5
              show lot b                         => expires_at=120
        @101  debit m1 1                         => from=b:1
              show lot a                         => expires_at=168
              show lot b                         => expires_at=168
    "

    each_lot_has_the_days_of_the_rule_that_made_it: "
        @1    rules 0 live idle:2                => version=1
              a = check-in m1                    => points=10
        @24   rules 1 live idle:5                => version=2
              b = check-in m1                    => points=10
        @48   rules 2                            => version=3
              c = check-in m1                    => points=10
              show lot a                         => expires_at=120 idle=2
              show lot b                         => expires_at=192 idle=5
              show lot c                         => expires_at=never idle=none
        @100  debit m1 25                        => from=a:10,b:10,c:5
    "

    // The end that moved is the place in the order of spending too.
    spending_goes_by_the_ends_as_they_are: "
        @1    rules 0 live idle:1                => version=1
              a = check-in m1                    => points=10
              b = grant m1 10 until 50           => ok
        @40   debit m1 1                         => from=a:1
              debit m1 1                         => from=b:1
              show lot a                         => expires_at=72
              debit m1 12                        => from=b:9,a:3
    "

    points_that_change_hands_live_by_what_their_new_owner_does: "
        @1    rules 0 live idle:2                => version=1
              a = check-in m1                    => points=10
              x = check-in m2                    => points=10
        @30   y = check-in m2                    => points=10
              t = give m1 m2 4                   => ok
              show lot t                         => expires_at=72 idle=2
              debit m1 1                         => ok
              show lot a                         => expires_at=96
              show lot t                         => expires_at=72
        # The second activity of the day: the lot came between the two.
              debit m2 1                         => from=t:1
              show lot t                         => expires_at=96
        @50   m = merge m2 m3                    => ok
              show lot m                         => expires_at=96 idle=2
              check-in m3                        => ok
              show lot m                         => expires_at=120
    "

    a_lot_that_comes_back_lives_by_the_next_activity: "
        @1    rules 0 live idle:2                => version=1
              a = check-in m1                    => points=10
              d = debit m1 10                    => from=a:10
        @30   check-in m1                        => ok
              show lot a                         => expires_at=72
              reverse d                          => from=a:10
              show lot a                         => expires_at=72
              debit m1 1                         => from=a:1
              show lot a                         => expires_at=96
    "

    a_day_made_up_is_an_activity_of_today: "
        @1    rules 0 live idle:2 make-up 3 price 4   => version=1
              a = check-in m1                         => points=10
        @50   b = check-in m1 day 1                   => points=10 made-up=true
              show lot a                              => expires_at=120 used=4
              show lot b                              => expires_at=120
    "

    a_lot_is_told_of_for_each_end_it_has_had: "
        @1    rules 0 live idle:2                => version=1
              a = check-in m1                    => points=10
              remind 3 0..72 a                   => told=1
        @30   debit m1 1                         => ok
              remind 3 72..96 a                  => told=1
        @31   remind 3 96..120 a                 => told=0
              events a                           => points.granted@1 points.checked_in@1 points.expiring@1 points.expiring@30
    "

    points_that_come_later_need_a_life_after_that: "
        @5   grant m1 10 from 10 until 10   => POINTS_EXPIRES_BEFORE_AVAILABLE
             grant m1 10 from 10 until 11   => ok
             grant m1 10 from 5 until 6     => ok
             show account m1                => available=10 frozen=10
        @11  expire m1                      => holds=1 points=20
             ledger m1                      => EARN_ORDER+10@5 HOLD-10@5 EARN_ORDER+10@5 EXPIRE-10@6 RELEASE+10@10 EXPIRE-10@11
    "

    // Complaint: buy, earn, return within the window: the pending points must go first, and leave no debt.
    a_claw_back_takes_what_is_still_to_come_first: "
        @0   g = grant m1 100 from 10   => ok
             h = grant m1 30            => ok
             reverse g 40               => CLAWBACK points=-40 from=g:40 debt=0
             show account m1            => available=30 frozen=60 revoked=40
             show lot g                 => held=60 revoked=40
             reverse g 60               => CLAWBACK points=-60 from=g:60
             show account m1            => available=30 frozen=0 revoked=100
        @10  show account m1            => available=30
    "

    a_debt_is_settled_when_points_become_available_not_before: "
        @0   g = grant m1 50            => ok
             debit m1 50                => ok
             reverse g                  => CLAWBACK points=0 debt=50
             later = grant m1 80 from 5 => debt=50
             show account m1            => available=0 frozen=80 debt=50
        @5   expire m1                  => holds=1
             show account m1            => available=30 frozen=0 revoked=50 debt=0
    "

    points_given_to_another_member_keep_their_expiry: "
        @0   a = grant m1 30 until 20     => ok
             b = grant m1 30 until 40     => ok
        @5   t = give m1 m2 40        => sent=-40 received=40 from=a:30,b:10 lots=2 left=20 after=40
             show account m1              => total=20 available=20
             show account m2              => total=40 available=40
             show lot a                   => points=30 remaining=0 moved=30
             show lot t                   => points=30 expires_at=20 available_from=5
        @20  expire m2                    => points=30
             show account m2              => available=10 expired=30
        @40  expire m2                    => points=10
             expire m1                    => points=20
             events t                     => points.transferred@5
    "

    a_transfer_needs_two_members_and_what_it_gives: "
        @0   g = grant m1 10          => ok
             give m1 m1 1         => POINTS_SAME_MEMBER
             give m1 m2 11        => POINTS_INSUFFICIENT available=10 requested=11
             give m3 m2 1         => POINTS_INSUFFICIENT available=0
             debit m1 4               => ok
             reverse g                => debt=4
             grant m1 2               => ok
             give m1 m2 1         => POINTS_IN_DEBT debt=2
    "

    what_comes_to_a_member_in_debt_settles_it: "
        @0   g = grant m2 10          => ok
             debit m2 10              => ok
             reverse g                => debt=10
             grant m1 25              => ok
             give m1 m2 20        => after=20 debt=10
             show account m2          => available=10 debt=0 revoked=10 total=30
    "

    a_transfer_goes_back_as_far_as_nothing_was_spent_of_it: "
        @0   a = grant m1 30 until 20     => ok
             b = grant m1 30              => ok
             t = give m1 m2 50        => ok
             debit m2 35                  => ok
             take-back t 16               => POINTS_REVERSAL_EXCEEDS left=15
             take-back t 5                => sent=-5 received=5
             show lot b                   => remaining=15 moved=15
             take-back t                  => sent=-10 received=10
             take-back t                  => POINTS_REVERSAL_EXCEEDS left=0
             reverse t                    => POINTS_NOT_REVERSIBLE
             show account m1              => available=25 total=25
             show account m2              => available=0 used=35 total=35
    "

    an_expired_part_of_a_transfer_does_not_go_back: "
        @0   a = grant m1 30 until 20     => ok
             t = give m1 m2 30        => ok
        @20  take-back t                  => POINTS_REVERSAL_EXCEEDS left=0
             show account m2              => expired=30
             show account m1              => total=0
    "

    a_merge_moves_lots_pending_ones_and_debts_and_closes_the_account: "
        @0   a = grant old 30 until 20      => ok
             p = grant old 40 from 10       => ok
             n = grant new 5                => ok
             m = merge old new              => sent=-70 received=70 lots=2
             show account old               => total=0 available=0 frozen=0 merged_into=new
             show account new               => total=75 available=35 frozen=40
             grant old 1                    => POINTS_ACCOUNT_MERGED
             debit old 1                    => POINTS_ACCOUNT_MERGED
             hold old 1                     => POINTS_ACCOUNT_MERGED
             give new old 1             => POINTS_ACCOUNT_MERGED
             give old new 1             => POINTS_ACCOUNT_MERGED
             check-in old                   => POINTS_ACCOUNT_MERGED
             merge new old                  => POINTS_ACCOUNT_MERGED
             take-back m                    => POINTS_ACCOUNT_MERGED
        @10  expire new                     => holds=1
             show account new               => available=75 frozen=0
        @20  expire new                     => points=30
    "

    a_merge_waits_for_open_holds: "
        @0   grant old 30             => ok
             h = hold old 10          => ok
             merge old new            => POINTS_HOLDS_OPEN points=10
             release h                => ok
             merge old new            => sent=-30 received=30
             merge old old            => POINTS_SAME_MEMBER
             merge old m3             => POINTS_ACCOUNT_MERGED
    "

    a_merge_waits_for_points_that_an_order_holds_and_what_the_order_gives_back_follows: "
        @0   grant old 300                                      => ok
             o = reserve b1 old 10000x1 points 100 until 5      => RESERVED spent=100
             merge old new                                      => POINTS_HOLDS_OPEN points=100
        @1   pay o                                              => PAID granted=100
             merge old new                                      => sent=-300
             refund o r1 full                                   => REFUNDED returned=100 clawed=100
             show account old                                   => available=0 debt=0 used=0
             merge old new                                      => received=0
             show account new                                   => total=300 available=300
    "

    // Orders of a closed account go on: nobody's payment fails because two accounts became one.
    an_order_without_points_is_paid_after_a_merge_and_what_it_earns_follows: "
        @0   grant old 10                                       => ok
             o = reserve b2 old 10000x1 until 5                 => RESERVED
             merge old new                                      => sent=-10
             reserve b3 old 10000x1 points 100                  => POINTS_ACCOUNT_MERGED
        @1   pay o                                              => PAID granted=100
             show account old                                   => available=100 merged_into=new
             merge old new                                      => received=100
             show account new                                   => total=110 available=110
    "

    // What happened before a merge can still be undone; merging again moves what came of it.
    a_refund_to_a_merged_account_follows_by_another_merge: "
        @0   g = grant old 30         => ok
             d = debit old 20         => ok
             merge old new            => received=10
             reverse d 15             => REFUND points=15
             show account old         => available=15 used=5
             merge old new            => received=15
             reverse g                => CLAWBACK points=0 debt=30
             merge old new            => received=0 debt=30
             show account new         => available=0 revoked=25 debt=5
             show account old         => debt=0 used=5 total=5
    "

    // Complaint: signed in twice at midnight.
    a_check_in_counts_once_a_day_and_a_streak_grows_day_by_day: "
        @10    c = check-in m1        => day=1970-01-01 streak=1 points=10 again=false
        @23    check-in m1            => day=1970-01-01 streak=1 again=true
        @24    check-in m1            => day=1970-01-02 streak=2 again=false
        @73    check-in m1            => day=1970-01-04 streak=1 again=false
        @73    check-in m1 at 72      => day=1970-01-04 again=true
        @72    check-in m2            => streak=1
        @71    check-in m2            => POINTS_CHECK_IN_OUT_OF_ORDER
               ledger m1              => EARN_CHECKIN+10@10 EARN_CHECKIN+10@24 EARN_CHECKIN+10@73
               reverse c              => CLAWBACK points=-10
               check-in m1            => POINTS_CHECK_IN_OUT_OF_ORDER
    "

    check_ins_follow_the_rules_of_their_time: "
        @0     rules 0 bonus 2:5,3:20 days 1    => version=1
        @1     check-in m1                      => streak=1 points=10
        @24    check-in m1                      => streak=2 points=15
        @48    check-in m1                      => streak=3 points=30
        @72    check-in m1                      => streak=4 points=10
               ledger m1                        => EARN_CHECKIN+10@1 EARN_CHECKIN+15@24 EXPIRE-10@25 EXPIRE-15@48 EARN_CHECKIN+30@48 EXPIRE-30@72 EARN_CHECKIN+10@72
               rules 1 no-check-ins             => version=2
               check-in m1                      => streak=4 again=true
               check-in m2                      => POINTS_CHECK_IN_DISABLED
    "

    // Complaint (nexusphp#228): a made-up day was added at the wrong place, so the streak did not come back.
    a_day_that_is_made_up_joins_the_days_before_it_with_those_behind: "
        @0     rules 0 bonus 3:5,5:20 make-up 3 price 4    => version=1
        @1     check-in m1            => streak=1
        @24    check-in m1            => streak=2
        @72    check-in m1            => streak=1
        @96    check-in m1            => streak=2 made-up=false
               c = check-in m1 day 2  => day=1970-01-03 streak=3 points=35 bonus=25 made-up=true again=false
               check-in m1 day 2      => streak=3 points=35 again=true
               check-in m1 day 3      => streak=4 again=true made-up=false
               check-in m1            => streak=5 points=10 again=true
               ledger m1              => EARN_CHECKIN+10@1 EARN_CHECKIN+10@24 EARN_CHECKIN+10@72 EARN_CHECKIN+10@96 USE_PRODUCT-4@96 EARN_CHECKIN+35@96
               events c               => points.granted@96 points.checked_in@96
        @120   check-in m1            => streak=6 points=10
               reverse c              => CLAWBACK points=-35
               check-in m1 day 2      => again=true
    "

    // No step of the ladder is climbed twice by one run of days, and none is taken back.
    a_day_that_is_made_up_gives_the_bonuses_that_only_the_longer_streak_reaches: "
        @0     rules 0 bonus 2:3,3:5,4:7,9:9 make-up 31    => version=1
               check-in m1            => streak=1
        @24    check-in m1            => streak=2 bonus=3
        @72    check-in m1            => streak=1
        @96    check-in m1            => streak=2 bonus=3
        @120   check-in m1            => streak=3 bonus=5
               check-in m1 day 2      => streak=3 points=17 bonus=7
        @168   check-in m1 day 6      => streak=7 points=10 bonus=0
               check-in m1            => streak=8 bonus=0
        @192   check-in m1            => streak=9 bonus=9
        # On its own, on the first day of all, and before it.
        @240   check-in m2 day 8      => streak=1 points=10
               check-in m2 day 7      => streak=1 points=13 bonus=3
               check-in m2            => streak=1
               check-in m2 day 9      => streak=3 points=22 bonus=12
        @264   check-in m2            => streak=5
    "

    a_day_is_made_up_only_when_the_rules_say_so_and_it_is_paid_for: "
        @240   check-in m1 day 9      => POINTS_MAKE_UP_DISABLED
               check-in m1 day 10     => POINTS_CHECK_IN_DAY_NOT_PAST
               check-in m1 day 11     => POINTS_CHECK_IN_DAY_NOT_PAST
               rules 0 make-up 3 price 15 => version=1
               check-in m1 day 6      => POINTS_MAKE_UP_TOO_LATE
               check-in m1 day 9      => POINTS_INSUFFICIENT available=0 requested=15
               check-in m1            => streak=1 points=10
               check-in m1 day 9      => POINTS_INSUFFICIENT available=10
               grant m1 5             => ok
               check-in m1 day 9      => streak=1 points=10
        @216   check-in m1 day 8      => POINTS_CHECK_IN_OUT_OF_ORDER
        @240   debit m1 5             => ok
               rules 1 no-check-ins make-up 3 => version=2
               check-in m1 day 8      => POINTS_CHECK_IN_DISABLED
               check-in m1 day 9      => again=true
               merge m1 m3            => received=5
               rules 2 make-up 3      => version=3
               check-in m1 day 8      => POINTS_ACCOUNT_MERGED
    "

    // January 31 is day 30.
    so_many_days_of_a_month_are_made_up: "
        @816   rules 0 make-up 31 per-month 2 => version=1
               check-in m1 day 30     => streak=1
               check-in m1 day 28     => streak=1
               check-in m1 day 29     => POINTS_MAKE_UP_LIMIT_REACHED limit=2
               check-in m1 day 31     => streak=2
               check-in m1 day 32     => streak=3
               check-in m1 day 33     => POINTS_MAKE_UP_LIMIT_REACHED
               check-in m1            => streak=1
    "

    // Complaint: a task done twice at once, or a hundred times a day.
    a_task_is_rewarded_once_for_each_report_and_so_often_in_a_period: "
        @0    task share per DAY limit 2 points 7    => version=1 enabled=true
              task share per DAY                     => POINTS_TASK_EXISTS
              report share m1 r1                     => step=1/1 points=7 period=1970-01-01 again=false
              report share m1 r1                     => points=7 again=true
              report share m1 r2                     => points=7
              report share m1 r3                     => POINTS_TASK_PERIOD_LIMIT_REACHED limit=2
              report share m2 r1                     => points=7 again=false
        @24   report share m1 r3                     => points=7 period=1970-01-02
              show account m1                        => total=21
        # A day that is over has no room of its own left.
        @23   report share m1 r4                     => points=7 period=1970-01-02
              report share m1 r5                     => POINTS_TASK_PERIOD_LIMIT_REACHED
    "

    a_task_of_several_steps_is_completed_by_the_last: "
        @0    task buy per WEEK target 3 total 2 points 9    => ok
              report buy m1 o1       => step=1/3 points=0
              report buy m1 o2       => step=2/3 points=0
              report buy m1 o2       => step=2/3 again=true
              report buy m1 o3       => step=3/3 points=9 period=1969-12-29
              report buy m1 o4       => POINTS_TASK_PERIOD_LIMIT_REACHED
        @96   report buy m1 o5       => step=1/3 period=1970-01-05
              report buy m1 o6       => step=2/3
        # Steps do not go over into the next week.
        @264  report buy m1 o7       => step=1/3 period=1970-01-12
              report buy m1 o8       => step=2/3
              report buy m1 o9       => step=3/3 points=9
        @432  report buy m1 o10      => POINTS_TASK_LIMIT_REACHED limit=2
              show account m1        => total=18
    "

    a_task_has_a_window_versions_and_an_end: "
        @0    task t opens 5 closes 9        => ok
              report t m1 r1                 => POINTS_TASK_NOT_STARTED
        @5    report t m1 r1                 => points=5
        @9    report t m2 r1                 => POINTS_TASK_ENDED
              edit-task t version 2          => POINTS_TASK_VERSION_STALE current=1
              edit-task t version 1 points 6 off => version=2 enabled=false
              report t m2 r1                 => POINTS_TASK_DISABLED
              edit-task t version 2 points 6 => version=3 enabled=true
              edit-task t version 3 points 6 => version=3
              report t m2 r1                 => points=6
              delete-task t                  => ok
              delete-task t                  => POINTS_TASK_NOT_FOUND
              report t m3 r1                 => POINTS_TASK_NOT_FOUND
              report t m1 r1                 => points=5 again=true
              task t                         => POINTS_TASK_EXISTS
              report unknown m1 r1           => POINTS_TASK_NOT_FOUND
    "

    // Two accounts of one person must not have each task twice.
    a_merge_goes_on_with_the_tasks_of_both: "
        @0    task once points 5                        => ok
              task gift requires once points 1          => ok
              task buy per WEEK target 3 points 9       => ok
              report once old r1                        => points=5
              report buy old o1                         => step=1/3
              report buy old o2                         => step=2/3
              report buy new o1                         => step=1/3
              report gift new g1                        => POINTS_TASK_PREREQUISITES_MISSING
              merge old new                             => ok
              report once new r1                        => POINTS_TASK_PERIOD_LIMIT_REACHED limit=1
              report gift new g1                        => points=1
        # Of the steps those of whoever was further.
              report buy new o2                         => step=3/3 points=9
              report buy new o3                         => POINTS_TASK_PERIOD_LIMIT_REACHED
        # Nothing is carried over twice, nor lost on the way to a third account.
              merge old new                             => ok
              merge new last                            => ok
              report once last r1                       => POINTS_TASK_PERIOD_LIMIT_REACHED
              report buy last o1                        => POINTS_TASK_PERIOD_LIMIT_REACHED
        @96   report buy last o1                        => step=1/3 period=1970-01-05
    "

    a_merge_into_an_earlier_period_of_a_task_begins_the_later_one: "
        @0    task share per DAY limit 2 total 4 points 1   => ok
              report share new r1                           => points=1
              report share new r2                           => points=1
        @24   report share old r1                           => period=1970-01-02
              merge old new                                 => ok
              report share new r3                           => points=1 period=1970-01-02
              report share new r4                           => POINTS_TASK_LIMIT_REACHED limit=4
        @0    report share early r1                         => period=1970-01-01
        @24   report share late r1                          => period=1970-01-02
              merge early late                              => ok
              report share late r2                          => points=1
              report share late r3                          => POINTS_TASK_PERIOD_LIMIT_REACHED limit=2
    "

    a_task_waits_for_those_it_requires: "
        @0    task visit per DAY points 1               => ok
              task buy target 2 points 2                => ok
              task review requires visit,buy points 9   => version=1
              report review m1 r1                       => POINTS_TASK_PREREQUISITES_MISSING missing=[TaskKey(\"visit\"),
              report visit m1 v1                        => points=1
              report review m1 r1                       => POINTS_TASK_PREREQUISITES_MISSING missing=[TaskKey(\"buy\")]
              report buy m1 b1                          => step=1/2 points=0
        # A step is no completion; another member's is none either.
              report review m1 r1                       => POINTS_TASK_PREREQUISITES_MISSING
              report visit m2 v1                        => points=1
              report buy m2 b1                          => step=1/2
              report buy m2 b2                          => points=2
              report review m1 r1                       => POINTS_TASK_PREREQUISITES_MISSING
              report buy m1 b2                          => points=2
        # Once is enough, in whatever period.
        @72   report review m1 r1                       => points=9 again=false
              report review m1 r1                       => points=9 again=true
              report review m1 r2                       => POINTS_TASK_PERIOD_LIMIT_REACHED
    "

    a_required_task_that_is_deleted_lapses: "
        @0    task first                          => ok
              task second requires first          => ok
              report second m1 r1                 => POINTS_TASK_PREREQUISITES_MISSING
        # Switched off is not gone.
              edit-task first version 1 off       => enabled=false
              report second m1 r1                 => POINTS_TASK_PREREQUISITES_MISSING
              delete-task first                   => ok
              report second m1 r1                 => points=5
        # It is no reason to refuse an edit of something else, and cannot be required anew.
              edit-task second version 1 requires first points 6 => version=2
              task third requires first           => POINTS_TASK_REQUIRES_UNKNOWN missing=[TaskKey(\"first\")]
              task third requires second          => ok
              edit-task second version 2 requires first,none => POINTS_TASK_REQUIRES_UNKNOWN missing=[TaskKey(\"first\"),
    "

    no_task_requires_itself: "
        @0    task a requires a                   => POINTS_TASK_REQUIRES_ITSELF through=TaskKey(\"a\")
              task a                              => ok
              task b requires a                   => ok
              task c requires b                   => ok
              task d                              => ok
              edit-task a version 1 requires a    => POINTS_TASK_REQUIRES_ITSELF through=TaskKey(\"a\")
              edit-task a version 1 requires b    => POINTS_TASK_REQUIRES_ITSELF through=TaskKey(\"b\")
              edit-task a version 1 requires d,c  => POINTS_TASK_REQUIRES_ITSELF through=TaskKey(\"c\")
              edit-task a version 1 requires d    => version=2
              edit-task b version 1               => version=2
              edit-task c version 1               => version=2
        # The other way round, now that nothing is in the way.
              edit-task a version 2 requires b    => version=3
              edit-task b version 2 requires c    => version=3
              edit-task c version 2 requires a    => POINTS_TASK_REQUIRES_ITSELF
              delete-task b                       => ok
              edit-task c version 2 requires a    => version=3
    "
}

const TENANT: TenantId = TenantId(uuid::Uuid::from_u128(1));

struct Shop {
    harness: Harness,
    made: u64,
    at: Timestamp,
}

impl Shop {
    fn open() -> Shop {
        let mut shop = Shop { harness: Harness::default(), made: 0, at: Timestamp(0) };
        let row = Tenant {
            id: TENANT,
            name: "Shop".into(),
            currency: "EUR".into(),
            time_zone: "UTC".into(),
            refund_grace_days: 0,
            created_at: Timestamp(0),
            program: None,
        };
        shop.run([Command::CreateTenant(row)]);
        shop
    }

    /// As one batch.
    fn run(&mut self, commands: impl IntoIterator<Item = Command>) -> Vec<Answer> {
        let envelope = |command| {
            self.made += 1;
            let seed = IdSeed { unix_ms: self.made, random: self.made.into() };
            let at = self.at;
            Envelope { tenant: TENANT, actor: None, command, idempotency: None, at, now: at, seed }
        };
        let batch: Vec<Envelope> = commands.into_iter().map(envelope).collect();
        self.harness.execute(&batch)
    }
}

fn create(key: &str, requires: &[String]) -> Command {
    let definition = Definition {
        name: "Task".into(),
        description: String::new(),
        points: 5,
        period: Period::Once,
        limit_per_period: 1,
        total_limit: None,
        target: 1,
        event_type: None,
        window: Window::default(),
        requires: requires.iter().map(|key| key.parse().expect("a key")).collect(),
    };
    Command::CreateTask { key: key.parse().expect("a key"), definition: Box::new(definition) }
}

fn report(key: &str, member: usize) -> Command {
    let calendar = Calendar { month_ends: Vec::new(), year_ends: Vec::new(), day: Day(0) };
    Command::CompleteTask {
        member_id: format!("m-{member}").parse().expect("a member"),
        key: key.parse().expect("a key"),
        completion_id: "c".parse().expect("an id"),
        calendar: Arc::new(calendar),
    }
}

#[test]
fn what_a_batch_of_reports_requires_is_asked_for_once_and_seen_within_the_batch() {
    let mut shop = Shop::open();
    shop.run([create("first", &[]), create("second", &["first".into()]), create("third", &["second".into()])]);
    shop.run((0..20).map(|member| report("first", member)));
    assert_eq!(shop.harness.asked_for_prerequisites, 0, "nothing is required");
    let keys = ["first", "third", "second", "third"];
    let answers = shop.run((10..30).flat_map(|member| keys.map(|key| report(key, member))));
    assert_eq!(shop.harness.asked_for_prerequisites, 1, "one question for the whole batch");
    for (number, answer) in answers.iter().enumerate() {
        let missing = vec!["second".parse().expect("a key")];
        match (number % keys.len(), answer) {
            (1, Answer::Refused(rejection)) => {
                assert_eq!(*rejection, Rejection::TaskPrerequisitesMissing { missing });
            }
            (0 | 2 | 3, Answer::Accepted { outcome: Outcome::Report { report, again }, .. }) => {
                // Ten of them had done the first one before.
                assert_eq!((report.points, *again), (5, number % keys.len() == 0 && number < 10 * keys.len()));
            }
            other => panic!("{number}: {other:?}"),
        }
    }
    // A task that comes into the batch with its prerequisite is asked for when it is there.
    let answers = shop.run([create("late", &["first".into()]), report("late", 0), report("late", 99)]);
    assert!(matches!(answers[1], Answer::Accepted { .. }), "{:?}", answers[1]);
    let missing = vec!["first".parse().expect("a key")];
    assert_eq!(answers[2], Answer::Refused(Rejection::TaskPrerequisitesMissing { missing }));
}

/// An account without idle lots asks for nothing; one with them once a day, however many lots it has.
#[test]
fn activity_costs_nothing_more_but_once_a_day() {
    let calendar = |day| Arc::new(Calendar { month_ends: Vec::new(), year_ends: Vec::new(), day: Day(day) });
    let member = |name: &str| -> MemberId { name.parse().expect("a member") };
    let check_in =
        |name: &str, day| Command::CheckIn { member_id: member(name), missed: None, calendar: calendar(day) };
    let movement = |kind| Movement { points: 1, kind, reference: None, remark: None };
    let (earned, used) = (TransactionType::EarnOrder, TransactionType::UseProduct);
    let debit = |name: &str| Command::Debit { member_id: member(name), movement: movement(used) };
    let end = |day: i64| Some(Timestamp(day * MICROS_PER_DAY));
    let grant = |name: &str, expires_at, idle_days| {
        let spendable = Spendable { available_from: None, expires_at, idle_days };
        Command::Grant { member_id: member(name), movement: movement(earned), spendable }
    };
    let mut shop = Shop::open();
    shop.harness.lot_page = 4;
    // Others first: the page of the first lots shows none that expires by inactivity.
    shop.run((0..10).map(|_| grant("plain", end(2), None)));
    shop.run((0..10).map(|_| grant("idle", end(2), None)));
    shop.run((0..10).map(|_| grant("idle", end(4), Some(3))));
    assert_eq!((shop.harness.asked_for_lots, shop.harness.asked_for_day_ends), (0, 1), "one batch, one day");
    let asked = |shop: &Shop| (shop.harness.asked_for_lots, shop.harness.asked_for_day_ends);
    shop.run([debit("idle"), debit("plain"), debit("idle")]);
    assert_eq!(asked(&shop), (0, 1), "the ends are where this day moves them");
    shop.at = Timestamp(MICROS_PER_DAY);
    shop.run([debit("plain"), check_in("plain", 1)]);
    assert_eq!(asked(&shop), (0, 1), "no idle lots");
    let written = |answers: &[Answer]| answers.iter().all(|answer| matches!(answer, Answer::Accepted { .. }));
    assert!(written(&shop.run([debit("idle"), debit("idle")])));
    assert_eq!(asked(&shop), (1, 2), "a new day moves them, once");
    assert!(written(&shop.run([debit("idle")])));
    assert_eq!(asked(&shop), (1, 2));
    let lots = shop.harness.rows.lots.values().flat_map(|lots| lots.values());
    let ends: Vec<Timestamp> = lots.filter(|lot| lot.idle_days.is_some()).map(|lot| lot.expires_at).collect();
    assert_eq!(ends, [Timestamp(5 * MICROS_PER_DAY); 10]);
}

#[test]
fn a_task_leads_to_a_hundred_others_at_most() {
    let mut shop = Shop::open();
    for number in 0..=MAX_WALK {
        let requires: Vec<String> = number.checked_sub(1).map(|before| format!("t-{before}")).into_iter().collect();
        let answer = shop.run([create(&format!("t-{number}"), &requires)]).remove(0);
        assert!(matches!(answer, Answer::Accepted { .. }), "{number}: {answer:?}");
    }
    let answer = shop.run([create("one-more", &[format!("t-{MAX_WALK}")])]).remove(0);
    assert_eq!(answer, Answer::Refused(Rejection::TaskRequiresTooMany { most: MAX_WALK }));
}
