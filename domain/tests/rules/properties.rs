//! Random runs: the domain beside the model, and laws that hold for any commands.

use proptest::prelude::*;
use scrip_domain::command::{Command, Envelope, Movement};
use scrip_domain::id::IdSeed;
use scrip_domain::points::{Lot, Spendable, TransactionType};
use scrip_domain::tenant::Tenant;
use scrip_domain::time::Calendar;
use scrip_domain::{
    Answer, CouponId, HoldId, MemberId, OrderId, Outcome, TemplateId, TenantId, Timestamp, TransactionId,
};

use crate::generate::{Generator, HOUR, Random};
use crate::harness::{Harness, Rows};
use crate::model::{Model, ModelAnswer};

/// Runs `count` random commands one by one, each beside the model.
fn run(seed: u64, count: usize, backdated: bool) -> (Vec<Envelope>, Vec<Answer>, Harness) {
    let mut generator = Generator::new(seed);
    generator.backdated = backdated;
    let (mut harness, mut model) = (Harness::default(), Model::default());
    let (mut envelopes, mut answers) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for step in 0..count {
        let envelope = generator.next();
        let answer = harness.execute(std::slice::from_ref(&envelope)).remove(0);
        if let Command::WorkChunk { bulk_id, number, .. } = envelope.command
            && let Some(chunk) = harness.rows.chunks.get(&(envelope.tenant, bulk_id, number))
        {
            model.learn_chunk(envelope.tenant, bulk_id, number, &chunk.outcomes);
        }
        let expected = model.apply(&envelope, &answer);
        assert_eq!(ModelAnswer::of(&answer), expected, "seed {seed}, step {step}: {envelope:?}");
        if step % 100 == 99 {
            compare(&harness, &model, seed, step);
        }
        generator.learn(&envelope, &answer);
        envelopes.push(envelope);
        answers.push(answer);
    }
    compare(&harness, &model, seed, count);
    harness.check_all();
    (envelopes, answers, harness)
}

fn compare(harness: &Harness, model: &Model, seed: u64, step: usize) {
    let differences = harness.snapshot().differences(&model.snapshot());
    assert!(differences.is_empty(), "seed {seed}, step {step}: {}", differences.join("\n"));
}

/// Executes the same commands in batches of random sizes.
fn run_in_batches(envelopes: &[Envelope], harness: &mut Harness, random: &mut Random, largest: i64) -> Vec<Answer> {
    let mut answers = Vec::with_capacity(envelopes.len());
    let mut rest = envelopes;
    while !rest.is_empty() {
        let size = (random.between(1, largest) as usize).min(rest.len());
        let (batch, later) = rest.split_at(size);
        answers.extend(harness.execute(batch));
        rest = later;
    }
    answers
}

/// The rows with events and ledgers in an order that does not depend on how different keys took turns.
fn sorted(mut rows: Rows) -> Rows {
    rows.events.sort_by_key(|(tenant, event)| (*tenant, event.id));
    rows
}

// 200 runs of 600 commands each, in four tests so that they share the cores.
fn domain_and_model_agree(seeds: std::ops::Range<u64>) {
    let (mut accepted, mut refused, mut replayed) = (0, std::collections::BTreeSet::new(), 0);
    for seed in seeds {
        let (_, answers, _) = run(seed, 600, true);
        for answer in answers {
            match answer {
                Answer::Accepted { replayed: true, .. } => replayed += 1,
                Answer::Accepted { .. } => accepted += 1,
                Answer::Refused(rejection) => _ = refused.insert(rejection.code()),
            }
        }
    }
    // The runs mean little when the commands are mostly refused, or always for the same few reasons.
    assert!(accepted > 50 * 600 / 3, "only {accepted} accepted");
    assert!(replayed > 50, "only {replayed} replayed");
    assert!(refused.len() >= 25, "only these refusals: {refused:?}");
}

#[test]
fn random_commands_give_what_the_model_gives_1() {
    domain_and_model_agree(0..50);
}

#[test]
fn random_commands_give_what_the_model_gives_2() {
    domain_and_model_agree(50..100);
}

#[test]
fn random_commands_give_what_the_model_gives_3() {
    domain_and_model_agree(100..150);
}

#[test]
fn random_commands_give_what_the_model_gives_4() {
    domain_and_model_agree(150..200);
}

/// M5, also with few of the lots loaded first: that page must never show in an answer.
#[test]
fn a_batch_gives_what_its_commands_give_one_by_one() {
    let mut asked = 0;
    for seed in 1000..1030 {
        let (envelopes, answers, singles) = run(seed, 500, true);
        let mut random = Random::new(seed);
        for (lot_page, largest) in [(256, 500), (256, 40), (1, 12), (2, 40), (4, 500)] {
            let mut batched = Harness::with_lot_page(lot_page);
            let got = run_in_batches(&envelopes, &mut batched, &mut random, largest);
            assert_eq!(got, answers, "seed {seed}, page {lot_page}, batches up to {largest}");
            batched.rows.assert_same(&singles.rows, &format!("seed {seed}, page {lot_page}, batches up to {largest}"));
            asked += batched.asked_for_lots;
        }
    }
    assert!(asked > 1000, "the small pages were hardly noticed: {asked}");
}

/// The real page, with more lots than it holds. Complaint: first-in-first-out over thousands of small credits is slow or wrong
/// (ProgrammerZamanNow/qna#983).
#[test]
fn accounts_of_many_lots_are_no_different() {
    let mut asked = 0;
    for seed in 0..4 {
        let mut random = Random::new(seed);
        let mut world = World::new();
        let mut envelopes = Vec::new();
        let (mut transactions, mut holds) = (Vec::new(), Vec::new());
        let mut model = Model::default();
        model.apply(&world.opening, &world.opened);
        let mut singles = world.harness.clone();
        for step in 0..1800 {
            let at = Timestamp(step / 4 * HOUR);
            let until = Timestamp(at.0 + HOUR * random.between(150, 900));
            let until = random.percent(90).then_some(until);
            let grants = if step < 1000 { 97 } else { 30 };
            let choice = random.between(0, 99);
            // At first little is spent, so that the lots pile up.
            let most = if step < 1100 { 10 } else { 900 };
            let command = if choice < grants {
                grant("m", random.between(1, 3), until)
            } else {
                match choice % 5 {
                    0 | 1 => debit("m", random.between(1, most)),
                    2 => Command::Hold {
                        member_id: member("m"),
                        movement: movement(random.between(1, most), TransactionType::Hold),
                        expires_at: Some(Timestamp(at.0 + HOUR * random.between(1, 60))),
                    },
                    3 if !holds.is_empty() => Command::CaptureHold {
                        member_id: member("m"),
                        hold_id: *random.pick(&holds).expect("a hold"),
                        points: Some(random.between(1, 60)),
                    },
                    _ => Command::Reverse {
                        member_id: member("m"),
                        transaction_id: random.pick(&transactions).copied().unwrap_or(TransactionId(world.tenant.0)),
                        points: Some(random.between(1, 5)),
                        remark: None,
                    },
                }
            };
            let envelope = world.envelope(command, at);
            let answer = singles.execute(std::slice::from_ref(&envelope)).remove(0);
            assert_eq!(ModelAnswer::of(&answer), model.apply(&envelope, &answer), "seed {seed}, step {step}");
            match &answer {
                Answer::Accepted { outcome: Outcome::Transaction(line), .. } => transactions.push(line.id),
                Answer::Accepted { outcome: Outcome::Hold { hold, transaction_id, .. }, .. } => {
                    holds.push(hold.id);
                    transactions.push(*transaction_id);
                }
                _ => {}
            }
            envelopes.push((envelope, answer));
        }
        let (envelopes, answers): (Vec<_>, Vec<_>) = envelopes.into_iter().unzip();
        let mut batched = world.harness.clone();
        assert_eq!(run_in_batches(&envelopes, &mut batched, &mut random, 60), answers);
        batched.rows.assert_same(&singles.rows, &format!("seed {seed}"));
        singles.check_all();
        asked += singles.asked_for_lots;
    }
    assert!(asked > 5, "only {asked} commands needed more than a page of lots");
}

#[test]
fn deciding_twice_gives_the_same_twice() {
    for seed in 2000..2010 {
        let mut generator = Generator::new(seed);
        let mut harness = Harness::default();
        for _ in 0..300 {
            let envelope = generator.next();
            let batch = std::slice::from_ref(&envelope);
            let mut states = [harness.load(batch), harness.load(batch)];
            let decided = states.each_mut().map(|state| harness.decide(state, batch, &envelope));
            assert_eq!(decided[0], decided[1]);
            let [first, second] = states.each_ref().map(|state| format!("{:?}", state.writes()));
            assert_eq!(first, second, "seed {seed}: {envelope:?}");
            assert_eq!(harness.execute(batch), decided[..1]);
            generator.learn(&envelope, &decided[0]);
        }
    }
}

/// A refusal is free of effects, but for what time has decided: settling first leaves nothing for it to write.
#[test]
fn a_refused_command_writes_only_what_settling_writes() {
    let mut seen = 0;
    for seed in 3000..3020 {
        let mut generator = Generator::new(seed);
        let mut harness = Harness::default();
        for _ in 0..400 {
            let envelope = generator.next();
            let before = harness.clone();
            let answer = harness.execute(std::slice::from_ref(&envelope)).remove(0);
            generator.learn(&envelope, &answer);
            let refused = matches!(answer, Answer::Refused(_));
            let settle_account = |member: &MemberId| Command::SettleAccount(member.clone());
            let settle = match &envelope.command {
                Command::Grant { member_id, .. }
                | Command::Debit { member_id, .. }
                | Command::Hold { member_id, .. }
                | Command::CaptureHold { member_id, .. }
                | Command::Exchange { member_id, .. }
                | Command::ApproveAdjustment { member_id, .. }
                | Command::CheckIn { member_id, .. }
                | Command::CompleteTask { member_id, .. }
                | Command::ReleaseHold { member_id, .. } => vec![settle_account(member_id)],
                Command::Adjust(asked) => vec![settle_account(&asked.member_id)],
                Command::Transfer { from, to, .. }
                | Command::ReverseTransfer { from, to, .. }
                | Command::Merge { from, into: to, .. } => vec![settle_account(from), settle_account(to)],
                Command::LockCoupon { coupon_id, .. }
                | Command::UseCoupon { coupon_id, .. }
                | Command::ReturnCoupon { coupon_id, .. }
                | Command::TransferCoupon { coupon_id, .. }
                | Command::ExtendCoupon { coupon_id, .. }
                | Command::RevokeCoupon { coupon_id, .. } => vec![Command::SettleCoupon(*coupon_id)],
                Command::ReserveOrder(asked) => vec![Command::SettleAccount(asked.member_id.clone())],
                // Paid late, an order is released first, and then finds what else was due.
                Command::PayOrder { member_id, order_id, .. } => vec![
                    Command::SettleOrder {
                        member_id: member_id.clone(),
                        order_id: order_id.clone(),
                        calendar: std::sync::Arc::new(Calendar::default()),
                    },
                    settle_account(member_id),
                ],
                Command::CancelOrder { member_id, order_id, .. }
                | Command::ConfirmOrder { member_id, order_id, .. }
                | Command::RefundOrder { member_id, order_id, .. } => vec![Command::SettleOrder {
                    member_id: member_id.clone(),
                    order_id: order_id.clone(),
                    calendar: std::sync::Arc::new(Calendar::default()),
                }],
                _ => {
                    assert!(!refused || before.rows == harness.rows, "seed {seed}: {envelope:?}");
                    continue;
                }
            };
            if refused && before.rows != harness.rows {
                seen += 1;
                // Of two accounts that both have something due, the second's ids depend on the first.
                let settled = settle.into_iter().map(|command| {
                    let one = Envelope { command, idempotency: None, ..envelope.clone() };
                    let mut settling = before.clone();
                    settling.execute(std::slice::from_ref(&one));
                    settling
                });
                let mut settled: Vec<Harness> = settled.filter(|one| one.rows != before.rows).collect();
                let Some(settling) = settled.pop().filter(|_| settled.is_empty()) else { continue };
                settling.rows.assert_same(&harness.rows, &format!("seed {seed}: {envelope:?}"));
            }
        }
    }
    assert!(seen > 20, "only {seen} refusals came with something due");
}

/// X6: with commands in the order of time, what they write is in that order as well.
#[test]
fn a_ledger_and_the_events_of_an_object_are_in_the_order_of_time() {
    for seed in 4000..4030 {
        let (_, _, harness) = run(seed, 500, false);
        for (tenant, member) in harness.rows.accounts.keys() {
            let times: Vec<_> = harness.ledger(*tenant, member).iter().map(|line| line.occurred_at).collect();
            assert!(times.is_sorted(), "seed {seed}, {member}: {times:?}");
        }
        let mut last = std::collections::BTreeMap::new();
        for (_, event) in &harness.rows.events {
            let earlier = last.insert(event.subject, event.occurred_at);
            assert!(earlier.is_none_or(|earlier| earlier <= event.occurred_at), "seed {seed}: {event:?}");
            assert!(event.occurred_at <= event.recorded_at);
        }
    }
}

/// M4: commands of different tenants may take any turns; and M8, one tenant's rows do not depend on another's.
#[test]
fn tenants_do_not_notice_each_other() {
    for seed in 5000..5010 {
        let (envelopes, _, together) = run(seed, 400, true);
        let mut by_tenant = envelopes.clone();
        // Whose program something is, and by whose keys, is told before all else.
        by_tenant.sort_by_key(|envelope| (!makes_tenant(&envelope.command), envelope.tenant));
        let mut apart = Harness::default();
        by_tenant.chunks(1).for_each(|one| _ = apart.execute(one));
        sorted(apart.rows).assert_same(&sorted(together.rows), &format!("seed {seed}"));
    }
}

/// M4 within a tenant: commands on different templates, coupons and accounts commute.
#[test]
fn commands_on_different_keys_commute() {
    let mut swapped = 0;
    for seed in 6000..6015 {
        let mut generator = Generator::new(seed);
        let mut harness = Harness::default();
        for _ in 0..250 {
            let pair = [generator.next(), generator.next()];
            let mut turned = harness.clone();
            let answers = harness.execute(&pair);
            pair.iter().zip(&answers).for_each(|(envelope, answer)| generator.learn(envelope, answer));
            let keys = pair.each_ref().map(|envelope| touched(envelope, &turned));
            if !keys[0].iter().any(|key| keys[1].contains(key)) {
                swapped += 1;
                let mut got = turned.execute(&[pair[1].clone(), pair[0].clone()]);
                got.reverse();
                assert_eq!(got, answers, "seed {seed}: {pair:?}");
                sorted(turned.rows).assert_same(&sorted(harness.rows.clone()), &format!("seed {seed}: {pair:?}"));
            }
        }
    }
    assert!(swapped > 1000, "only {swapped} pairs were free of each other");
}

/// The objects a command depends on or changes, as text.
fn touched(envelope: &Envelope, harness: &Harness) -> Vec<String> {
    let tenant = envelope.tenant;
    let mut keys: Vec<String> = envelope.idempotency.iter().map(|given| format!("{tenant} {:?}", given.key)).collect();
    // Creating a tenant changes all it may do; everything else is as its keys say.
    let mut all = scrip_domain::key::Keys::of([envelope]);
    let batch = std::slice::from_ref(envelope);
    all.follow_orders(batch, &harness.load(batch));
    keys.extend(all.orders.iter().map(|key| format!("{key:?}")));
    keys.extend(all.adjustments.iter().map(|key| format!("{key:?}")));
    keys.extend(all.compensations.iter().map(|key| format!("{key:?}")));
    keys.extend(all.rules.keys().chain(&all.newest_rules).map(|tenant| format!("rules of {tenant}")));
    keys.extend(all.templates.iter().chain(&all.template_reads).map(|key| format!("{key:?}")));
    keys.extend(all.coupons.iter().map(|key| format!("{key:?}")));
    keys.extend(all.accounts.iter().map(|key| format!("{key:?}")));
    keys.extend(all.webhooks.iter().map(|key| format!("{key:?}")));
    keys.extend(all.code_batches.iter().map(|key| format!("{key:?}")));
    keys.extend(all.codes.iter().map(|key| format!("{key:?}")));
    // A use is counted for a template that the command does not name, and an edit shows the count.
    let counts = matches!(envelope.command, Command::UseCoupon { .. } | Command::ReturnCoupon { .. });
    if counts || !all.template_uses.is_empty() {
        keys.push(format!("uses of {tenant}"));
    }
    keys.extend(all.tasks.iter().chain(&all.task_reads).map(|key| format!("{key:?}")));
    let requires = |key: &_| harness.rows.tasks.get(key).into_iter().flat_map(|task| &task.definition.requires);
    let reported = all.task_reports.iter().flat_map(|(_, _, key, _)| requires(&(tenant, key.clone())));
    keys.extend(reported.map(|required| format!("{:?}", (tenant, required))));
    if !all.tasks.is_empty() {
        keys.push(format!("what tasks of {tenant} require"));
    }
    if makes_tenant(&envelope.command) {
        keys.push("everything".into());
    }
    keys
}

fn makes_tenant(command: &Command) -> bool {
    matches!(command, Command::CreateTenant(_) | Command::CreateProgram(_) | Command::CreateApiKey { .. })
}

/// One tenant and a few shorthands.
struct World {
    tenant: TenantId,
    harness: Harness,
    opening: Envelope,
    opened: Answer,
    made: u64,
}

impl World {
    fn new() -> World {
        let tenant = TenantId(uuid::Uuid::from_u128(1));
        let row = Tenant {
            id: tenant,
            name: "Shop".into(),
            currency: "EUR".into(),
            time_zone: "UTC".into(),
            refund_grace_days: 3,
            created_at: Timestamp(0),
            program: None,
        };
        let seed = IdSeed { unix_ms: 0, random: 0 };
        let (command, at) = (Command::CreateTenant(row), Timestamp(0));
        let opening = Envelope { tenant, actor: None, command, idempotency: None, at, now: at, seed };
        let mut harness = Harness::default();
        let opened = harness.execute(std::slice::from_ref(&opening)).remove(0);
        World { tenant, harness, opening, opened, made: 0 }
    }

    fn envelope(&mut self, command: Command, at: Timestamp) -> Envelope {
        self.made += 1;
        let seed = IdSeed { unix_ms: self.made, random: self.made.into() };
        Envelope { tenant: self.tenant, actor: None, command, idempotency: None, at, now: at, seed }
    }

    fn execute(&mut self, command: Command, at: Timestamp) -> Answer {
        let envelope = self.envelope(command, at);
        self.harness.execute(&[envelope]).remove(0)
    }

    fn accept(&mut self, command: Command, at: Timestamp) -> Outcome {
        match self.execute(command.clone(), at) {
            Answer::Accepted { outcome, .. } => outcome,
            Answer::Refused(rejection) => panic!("{command:?}: {rejection:?}"),
        }
    }

    /// What is left of each lot, and how else it was spent.
    fn lots(&self) -> Vec<Lot> {
        self.harness.rows.lots.values().flat_map(|lots| lots.values().cloned()).collect()
    }

    fn columns(&self) -> [i64; 6] {
        let row = &self.harness.rows.accounts[&(self.tenant, member("m"))];
        [row.available, row.frozen, row.used, row.expired, row.revoked, row.debt]
    }
}

fn member(text: &str) -> MemberId {
    text.parse().expect("a member's id")
}

fn movement(points: i64, kind: TransactionType) -> Movement {
    Movement { points, kind, reference: None, remark: None }
}

fn grant(to: &str, points: i64, expires_at: Option<Timestamp>) -> Command {
    let (movement, spendable) =
        (movement(points, TransactionType::EarnOrder), Spendable { expires_at, ..Spendable::default() });
    Command::Grant { member_id: member(to), movement, spendable }
}

fn debit(from: &str, points: i64) -> Command {
    Command::Debit { member_id: member(from), movement: movement(points, TransactionType::UseOrder) }
}

fn reverse(outcome: &Outcome, points: Option<i64>) -> Command {
    let Outcome::Transaction(line) = outcome else { panic!("no transaction: {outcome:?}") };
    Command::Reverse { member_id: line.member_id.clone(), transaction_id: line.id, points, remark: None }
}

/// Lots of 1 to 50 points that expire after 2 to 40 hours, or never; then a number of points they can pay.
fn lots_and_points() -> impl Strategy<Value = (Vec<(i64, Option<i64>)>, i64)> {
    let lot = (1i64..50, prop::option::of(2i64..40));
    prop::collection::vec(lot, 1..8).prop_flat_map(|lots| {
        let sum = lots.iter().map(|(points, _)| points).sum();
        (Just(lots), 1..=sum)
    })
}

fn granted(lots: &[(i64, Option<i64>)]) -> World {
    let mut world = World::new();
    for (points, hours) in lots {
        world.accept(grant("m", *points, hours.map(|hours| Timestamp(hours * HOUR))), Timestamp(0));
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    /// M1 for points: what a hold took, its release brings back, lot by lot.
    #[test]
    fn a_hold_and_its_release_leave_everything_as_it_was((lots, points) in lots_and_points()) {
        let mut world = granted(&lots);
        let before = (world.lots(), world.columns());
        let hold = Command::Hold {
            member_id: member("m"),
            movement: movement(points, TransactionType::Hold),
            expires_at: None,
        };
        let Outcome::Hold { hold, .. } = world.accept(hold, Timestamp(HOUR)) else { panic!("no hold") };
        prop_assert_eq!(world.columns()[1], points);
        world.accept(Command::ReleaseHold { member_id: member("m"), hold_id: hold.id }, Timestamp(HOUR));
        prop_assert_eq!((world.lots(), world.columns()), before);
    }

    /// M2: a debit and its reversals, in any parts, leave the lots as they were.
    #[test]
    fn a_debit_and_its_reversals_leave_everything_as_it_was(
        (lots, points) in lots_and_points(),
        parts in prop::collection::vec(1i64..40, 0..6),
    ) {
        let mut world = granted(&lots);
        let before = (world.lots(), world.columns());
        let spent = world.accept(debit("m", points), Timestamp(HOUR));
        let mut left = points;
        for part in parts {
            let answer = world.execute(reverse(&spent, Some(part)), Timestamp(HOUR));
            let accepted = matches!(answer, Answer::Accepted { .. });
            prop_assert_eq!(accepted, part <= left);
            left -= if accepted { part } else { 0 };
        }
        if left > 0 {
            world.accept(reverse(&spent, None), Timestamp(HOUR));
        }
        prop_assert_eq!((world.lots(), world.columns()), before);
    }

    /// M2: a grant and its reversal leave what the member can spend as it was, and owe nothing.
    #[test]
    fn a_grant_and_its_reversal_leave_what_can_be_spent((lots, points) in lots_and_points(), spent in 0i64..40) {
        let mut world = granted(&lots);
        let spent = spent.min(world.columns()[0]);
        if spent > 0 {
            world.accept(debit("m", spent), Timestamp(0));
        }
        let before = (world.lots(), world.columns());
        let earned = world.accept(grant("m", points, Some(Timestamp(HOUR))), Timestamp(0));
        world.accept(reverse(&earned, None), Timestamp(0));
        let Outcome::Transaction(line) = &earned else { panic!("no transaction") };
        let others: Vec<Lot> = world.lots().into_iter().filter(|lot| Some(lot.id) != line.lot_id).collect();
        let mut expected = before.1;
        expected[4] += points;
        prop_assert_eq!((others, world.columns()), (before.0, expected));
    }

    /// M3: one debit or two that add up to it take the same from every lot.
    #[test]
    fn a_debit_in_two_parts_takes_what_one_takes((lots, points) in lots_and_points(), cut in 0i64..200) {
        let cut = cut % points;
        let (mut whole, mut parts) = (granted(&lots), granted(&lots));
        whole.accept(debit("m", points), Timestamp(HOUR));
        if cut > 0 {
            parts.accept(debit("m", cut), Timestamp(HOUR));
        }
        parts.accept(debit("m", points - cut), Timestamp(HOUR));
        prop_assert_eq!(whole.lots(), parts.lots());
        prop_assert_eq!(whole.columns(), parts.columns());
    }

    /// A hold captured in full takes what a debit takes.
    #[test]
    fn a_hold_captured_in_full_is_a_debit((lots, points) in lots_and_points()) {
        let (mut debited, mut captured) = (granted(&lots), granted(&lots));
        debited.accept(debit("m", points), Timestamp(HOUR));
        let hold = Command::Hold {
            member_id: member("m"),
            movement: movement(points, TransactionType::Hold),
            expires_at: None,
        };
        let Outcome::Hold { hold, .. } = captured.accept(hold, Timestamp(HOUR)) else { panic!("no hold") };
        let capture = Command::CaptureHold { member_id: member("m"), hold_id: hold.id, points: None };
        captured.accept(capture, Timestamp(HOUR));
        prop_assert_eq!(debited.lots(), captured.lots());
        prop_assert_eq!(debited.columns(), captured.columns());
    }

    /// The spendable sum is exactly what can be debited, at any hour.
    #[test]
    fn what_is_spendable_can_be_spent_and_no_point_more((lots, _) in lots_and_points(), hour in 0i64..45) {
        let at = Timestamp(hour * HOUR);
        let mut world = granted(&lots);
        let spendable: i64 =
            lots.iter().filter(|(_, until)| until.is_none_or(|until| hour < until)).map(|(points, _)| points).sum();
        let batch = [world.envelope(Command::SettleAccount(member("m")), at)];
        let state = world.harness.load(&batch);
        prop_assert_eq!(scrip_domain::points::spendable(state.account(world.tenant, &member("m")), at), spendable);
        prop_assert!(matches!(world.execute(debit("m", spendable + 1), at), Answer::Refused(_)));
        if spendable > 0 {
            world.accept(debit("m", spendable), at);
        }
        prop_assert_eq!(world.columns()[0], 0);
    }

    /// Ids survive their text form, and no text makes a parser fall over.
    #[test]
    fn ids_read_back_from_their_text(number: u128, text in "\\PC{0,80}") {
        let id = uuid::Uuid::from_u128(number);
        prop_assert_eq!(CouponId(id).to_string().parse(), Ok(CouponId(id)));
        prop_assert_eq!(HoldId(id).to_string().parse(), Ok(HoldId(id)));
        prop_assert!(TemplateId(id).to_string().parse::<CouponId>().is_err());
        if let Ok(id) = text.parse::<TransactionId>() {
            prop_assert_eq!(id.to_string(), text.to_lowercase());
        }
        let is_valid = (1..=64).contains(&text.len()) && text.bytes().all(|byte| (0x21..=0x7e).contains(&byte));
        prop_assert_eq!(text.parse::<MemberId>().is_ok(), is_valid);
        prop_assert_eq!(text.parse::<OrderId>().is_ok(), is_valid);
    }

    /// M1: a lock and its unlock change neither the coupon nor the stock.
    #[test]
    fn a_lock_and_its_unlock_leave_the_coupon_as_it_was(hours in 0i64..23, seed: u64) {
        let mut world = World::new();
        use scrip_domain::coupon::{Benefit, Definition, Validity};
        let definition = Definition {
            refund_extend_days: 0,
            ..Definition::new("T", Benefit::AmountOff { amount: 5 }, Validity::days(1))
        };
        let create = Command::CreateTemplate { definition: Box::new(definition), total_stock: Some(1) };
        let Outcome::Template(template) = world.accept(create, Timestamp(0)) else { panic!("no template") };
        let claim = Command::Claim { template_id: template.id, member_id: member("m"), member_level: None };
        let Outcome::Coupon(coupon) = world.accept(claim, Timestamp(0)) else { panic!("no coupon") };
        let (order, at) = (format!("o-{seed}").parse::<OrderId>().expect("an order"), Timestamp(hours * HOUR));
        let rows = world.harness.rows.clone();
        let lock = Command::LockCoupon { coupon_id: coupon.id, order_id: order.clone(), expires_at: None };
        world.accept(lock, at);
        world.accept(Command::UnlockCoupon { coupon_id: coupon.id, order_id: order }, at);
        prop_assert_eq!(&world.harness.rows.coupons, &rows.coupons);
        prop_assert_eq!(&world.harness.rows.templates, &rows.templates);
    }
}
