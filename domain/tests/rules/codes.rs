//! Coupon codes, as scenarios. The language is that of [`crate::script`]; a code's text stands for its digest.

use crate::coupons::scenarios;

scenarios! {
    /// peers: one code, many members, bounded uses (shopware#4177: the last unit must not be refused).
    a_shared_code_is_claimed_with_as_often_as_it_may_be_and_not_once_more: "
        @0   T = template                                 => batches=0
             K = codes T SHARED text SUMMER uses 2 count 1 => ACTIVE count=1 added=1 completed_at=0
             show template T                              => batches=1
             redeem K SUMMER m1                           => AVAILABLE source=CODE sequence=1
             redeem K SUMMER m1                           => COUPON_LIMIT_REACHED
             redeem K SUMMER m2                           => AVAILABLE
             redeem K SUMMER m3                           => COUPON_CODE_NOT_ACCEPTED
             show batch K                                 => claimed=2
             delete T                                     => COUPON_TEMPLATE_IN_USE
    "

    /// peers: different codes, one campaign cap (shopware PR 18716).
    different_codes_share_the_limits_of_their_template: "
        @0   T = template stock 2                         => ok
             K = codes T UNIQUE count 3                   => completed_at=none
             add K a,b,c                                  => added=3 completed_at=0
             redeem K a m1                                => ok
             redeem K b m2                                => ok
             redeem K c m3                                => COUPON_SOLD_OUT
             stock T 1                                    => ok
             redeem K c m3                                => ok
    "

    a_unique_code_is_claimed_with_once: "
        @0   T = template limit 9                         => ok
             K = codes T UNIQUE count 2                   => ok
             add K a                                      => added=1 next=1 completed_at=none
             redeem K a m1                                => AVAILABLE
             redeem K a m1                                => COUPON_CODE_NOT_ACCEPTED
             redeem K a m2                                => COUPON_CODE_NOT_ACCEPTED
             redeem K zzz m2                              => COUPON_CODE_NOT_ACCEPTED
    "

    a_code_may_be_one_members_alone: "
        @0   T = template limit 9                         => ok
             K = codes T UNIQUE count 4                   => ok
             add K a,b,c,d                                => ok
             assign K a m1                                => ok
             redeem K a m2                                => COUPON_CODE_NOT_ACCEPTED
             redeem K a m1                                => AVAILABLE
             assign K a m2                                => COUPON_CODE_IN_USE uses=1
             assign K a m1                                => ok
             assign K b m1                                => ok
             assign K b m2                                => ok
             redeem K b m1                                => COUPON_CODE_NOT_ACCEPTED
             redeem K b m2                                => ok
             assign K c m1                                => ok
             assign K c anybody                           => ok
             redeem K c m9                                => ok
             switch-code K d REVOKED                      => ok
             assign K d m1                                => COUPON_CODE_REVOKED
             assign K zzz m1                              => COUPON_CODE_NOT_FOUND
    "

    /// Whatever is wrong with a code, the answer is the same.
    what_is_wrong_with_a_code_is_not_told: "
        @0   T = template limit 9                         => ok
             O = template limit 9                         => ok
             K = codes T UNIQUE count 3                   => ok
             L = codes T UNIQUE count 3                   => ok
             add K a,b,c                                  => ok
             switch-code K a DISABLED                     => ok
             redeem K a m1                                => COUPON_CODE_NOT_ACCEPTED
             switch-code K a ACTIVE                       => ok
             switch-code K b REVOKED                      => ok
             redeem K b m1                                => COUPON_CODE_NOT_ACCEPTED
             redeem L a m1                                => COUPON_CODE_NOT_ACCEPTED
             redeem K a m1 for O                          => COUPON_CODE_NOT_ACCEPTED
             redeem X a m1                                => COUPON_CODE_NOT_ACCEPTED
             B: redeem K a m1                             => COUPON_CODE_NOT_ACCEPTED
             switch K DISABLED                            => DISABLED
             redeem K a m1                                => COUPON_CODE_NOT_ACCEPTED
             switch K ACTIVE                              => ACTIVE
             redeem K a m1                                => AVAILABLE
             switch K REVOKED                             => REVOKED
             redeem K c m1                                => COUPON_CODE_NOT_ACCEPTED
             switch K ACTIVE                              => COUPON_CODE_REVOKED
             switch-code K b ACTIVE                       => COUPON_CODE_REVOKED
             switch-code K zzz ACTIVE                     => COUPON_CODE_NOT_FOUND
             switch-code L a ACTIVE                       => COUPON_CODE_NOT_FOUND
             switch X ACTIVE                              => COUPON_CODE_BATCH_NOT_FOUND
             B: switch K ACTIVE                           => COUPON_CODE_BATCH_NOT_FOUND
    "

    /// The claim's own checks come after the code's, and leave the code as it was.
    a_refused_claim_leaves_its_code_as_it_was: "
        @0   T = template opens 5 levels GOLD             => ok
             K = codes T UNIQUE count 1                   => ok
             add K a                                      => ok
             redeem K a m1 level GOLD                     => COUPON_CLAIM_NOT_STARTED
        @5   redeem K a m1                                => COUPON_MEMBER_LEVEL
             disable T                                    => ok
             redeem K a m1 level GOLD                     => COUPON_TEMPLATE_DISABLED
             enable T                                     => ok
             redeem K a m1 level GOLD                     => AVAILABLE
    "

    /// A code exists once in a tenant: what is there already is left out and told, and a run twice changes nothing.
    codes_that_exist_are_left_out_and_told: "
        @0   T = template limit 9                         => ok
             K = codes T IMPORTED                         => count=0
             add K a,b,a                                  => added=2 next=3 known=2 completed_at=none
             add K b,c from 3 last                        => added=3 next=5 known=3 count=3 completed_at=0
             L = codes T IMPORTED                         => ok
             add L a,b,c last                             => added=0 known=0,1,2 completed_at=0
             codes T SHARED text a                        => COUPON_CODE_TAKEN
             B: codes T SHARED text a                     => COUPON_TEMPLATE_NOT_FOUND
             redeem K b m1                                => ok
    "

    /// A generation that was killed goes on where it stood; two at once do not double a code.
    pages_of_codes_follow_each_other: "
        @0   T = template                                 => ok
             K = codes T UNIQUE count 4                   => ok
             add K a,b                                    => added=2
             add K a,b                                    => COUPON_CODE_BATCH_OUT_OF_STEP generated=2
             add K c,a from 2                             => added=3 known=3 completed_at=none
             add K d from 4                               => added=4 completed_at=0 next=5
             add K e from 5                               => COUPON_CODE_BATCH_OUT_OF_STEP
             add X e                                      => COUPON_CODE_BATCH_NOT_FOUND
             events K                                     => code_batch.created@0 code_batch.codes_added@0 code_batch.codes_added@0 code_batch.codes_added@0 code_batch.completed@0
    "

    what_codes_are_made_from_is_destroyed_with_the_export_or_the_batch: "
        @0   T = template                                 => ok
             K = codes T UNIQUE count 1                   => ok
             L = codes T UNIQUE count 1                   => ok
             add K a                                      => ok
             show batch K                                 => nonce=kept exported_at=none
        @1   seal K                                       => exported_at=1
        @2   seal K                                       => exported_at=1
             show batch K                                 => nonce=gone
             switch L REVOKED                             => REVOKED
             show batch L                                 => nonce=gone
             add L b                                      => COUPON_CODE_REVOKED
             delete T                                     => COUPON_TEMPLATE_HAS_CODES batches=2
             redeem K a m1 key k                          => AVAILABLE
             redeem K a m1 key k                          => AVAILABLE replayed
             redeem K a m1 key k other                    => IDEMPOTENCY_KEY_REUSED
    "
}
