//! The clock steps back between commands, as it does when a node's time is corrected: sequences go on, nothing breaks.

use scrip_domain::command::Movement;
use scrip_domain::points::TransactionType;
use scrip_domain::time::MICROS_PER_DAY;
use scrip_domain::{Answer, Command, Envelope, Outcome, Timestamp};
use scrip_server::engine::EngineOptions;

use super::load::check_books;
use crate::harness::{Fixture, KINDS, definition, envelope, member, template, tenant};

/// Forth and back again: by a millisecond, an hour, a day, and within one microsecond.
const STEPS_US: [i64; 9] = [0, 1_000, 0, 3_600_000_000, 0, -3_600_000_000, MICROS_PER_DAY, -MICROS_PER_DAY, 0];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_steps_back_breaks_no_sequence() {
    for kind in KINDS {
        let fixture = Fixture::new(kind).await;
        let engine = fixture.engine(EngineOptions::default()).await;
        let tenant = tenant(&engine).await;
        let mut generous = definition();
        generous.limit_per_member = 1_000;
        let template = template(&engine, tenant, generous, Some(1_000)).await;
        let start = scrip_server::clock::now();
        let at = |envelope: Envelope, step: i64| {
            let now = Timestamp(start.0 + step);
            Envelope { at: now, now, seed: scrip_server::clock::seed(now), ..envelope }
        };
        let alice = member("alice");
        let movement = |points, kind| Movement { points, kind, reference: None, remark: None };
        let mut ledger = Vec::new();
        let mut coupons = Vec::new();
        for step in STEPS_US.into_iter().cycle().take(5 * STEPS_US.len()) {
            let commands = [
                Command::Grant {
                    member_id: alice.clone(),
                    movement: movement(10, TransactionType::EarnOrder),
                    spendable: Default::default(),
                },
                Command::Debit { member_id: alice.clone(), movement: movement(3, TransactionType::UseOrder) },
                Command::Claim { template_id: template, member_id: alice.clone(), member_level: None },
            ];
            for command in commands {
                match engine.submit(at(envelope(tenant, command), step)).await {
                    Ok(Answer::Accepted { outcome: Outcome::Transaction(row), .. }) => ledger.push(row.sequence),
                    Ok(Answer::Accepted { outcome: Outcome::Coupon(coupon), .. }) => coupons.push(coupon.sequence),
                    other => panic!("{kind:?}, step {step}: {other:?}"),
                }
            }
        }
        assert!(ledger.iter().copied().eq(1..=ledger.len() as i64), "{kind:?}: {ledger:?}");
        assert!(coupons.iter().copied().eq(1..=coupons.len() as i64), "{kind:?}: {coupons:?}");
        let expected = 1 + ledger.len() + coupons.len();
        let events = fixture.first_events(tenant, expected).await;
        assert_eq!(events.len(), expected, "{kind:?}: an event for each");
        let later = Timestamp(start.0 + MICROS_PER_DAY);
        let balance = fixture.store.balance(tenant, &alice, later, later).await.expect("a balance");
        assert_eq!(balance.available, 7 * STEPS_US.len() as i64 * 5, "{kind:?}");
        check_books(&fixture.store).await;
    }
}
