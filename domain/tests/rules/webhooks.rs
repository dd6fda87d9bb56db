//! Webhooks as scenarios. The language is that of [`crate::script`].

use scrip_domain::event::EventKind;
use scrip_domain::webhook::{LogPosition, Secrets, Webhook};
use scrip_domain::{Outcome, Timestamp, WebhookId};

use crate::coupons::scenarios;

scenarios! {
    a_webhook_is_made_edited_and_deleted: "
        @0  W = webhook to https://a.example types coupon.claimed    => ENABLED url=https://a.example types=coupon.claimed
        @1  hook-edit W to https://b.example                         => url=https://b.example types=coupon.claimed updated_at=1
        @2  hook-edit W to https://b.example                         => updated_at=1
            hook-edit W types coupon.used,points.granted             => types=coupon.used,points.granted updated_at=2
            B: hook-edit W to https://c.example                      => WEBHOOK_NOT_FOUND
        @3  hook-delete W                                            => ok
            hook-delete W                                            => WEBHOOK_NOT_FOUND
            hook-enable W                                            => WEBHOOK_NOT_FOUND
            events W                                                 => webhook.created@0 webhook.updated@1 webhook.updated@2 webhook.deleted@3
    "

    the_first_reason_to_stop_stays: "
        @0  W = webhook                             => ENABLED
            hook-disable W because EXHAUSTED        => EXHAUSTED
            hook-disable W                          => EXHAUSTED
        @1  hook-enable W                           => ENABLED updated_at=1
            hook-enable W                           => ENABLED
        @2  hook-disable W                          => OPERATOR
            hook-disable W because GONE             => OPERATOR
            events W                                => webhook.created@0 webhook.disabled@0 webhook.enabled@1 webhook.disabled@2
    "

    a_rotated_secret_goes_on_for_as_long_as_asked: "
        @0  W = webhook                       => ok
            show webhook W                    => secret=s1 previous=none
            hook-rotate W s2 until 24         => ENABLED
            show webhook W                    => secret=s2 previous=s1@24
            hook-rotate W s3                  => ENABLED
            show webhook W                    => secret=s3 previous=none
            events W                          => webhook.created@0 webhook.secret_rotated@0 webhook.secret_rotated@0
    "

    a_webhook_needs_a_tenant: "
        @0  U: webhook        => TENANT_NOT_FOUND
    "

    a_retry_makes_no_second_webhook: "
        @0  W = webhook key k          => ENABLED
            V = webhook key k          => ENABLED replayed
            hook-delete V              => ok
            hook-delete W              => WEBHOOK_NOT_FOUND
    "
}

fn webhook(types: &[&str]) -> Webhook {
    Webhook {
        id: WebhookId(uuid::Uuid::nil()),
        url: "https://a.example".into(),
        types: types.iter().map(|name| (*name).to_owned()).collect(),
        description: String::new(),
        disabled: None,
        secrets: Secrets { current: "whsec_secret".into(), previous: Some(("whsec_old".into(), Timestamp(1))) },
        starts_after: LogPosition { tx: 0, ordinal: -1 },
        created_at: Timestamp(0),
        updated_at: Timestamp(0),
    }
}

#[test]
fn no_recorded_outcome_has_a_secret() {
    let text = serde_json::to_string(&Outcome::Webhook(Box::new(webhook(&[])))).unwrap();
    assert!(text.starts_with("{\"Webhook\":{\"id\":\"whk_"), "{text}");
    assert!(!text.contains("whsec"), "{text}");
}

#[test]
fn no_types_are_all_types() {
    assert!(EventKind::ALL.iter().all(|kind| webhook(&[]).wants(*kind)));
    let some = webhook(&["coupon.claimed", "of.another.version"]);
    assert!(some.wants(EventKind::CouponClaimed) && !some.wants(EventKind::CouponUsed));
}
