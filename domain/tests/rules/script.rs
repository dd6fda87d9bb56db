//! Scenarios as text: one command a line, and what it must give.
//!
//! ```text
//! # A comment.
//! @0   T = template stock 1          => remaining=1
//!      c = claim T m1                => AVAILABLE sequence=1
//!      claim T m2                    => COUPON_SOLD_OUT total=1
//! @5-  lock c o1 until 9             => LOCKED locked_until=9
//!      events c                      => coupon.claimed@0 coupon.locked@5-
//! ```
//!
//! `@5` moves the clock to hour 5, `@5-` to the microsecond before it. `name = command` names what the command makes, a
//! grant's name is also that of its lot. After `=>` stands a code in capitals (refused) or what the answer shows. `B:`
//! before a command lets another tenant ask; A gives refunded points 7 days of grace, B none, and U is no tenant. A
//! trailing `at 3` backdates, `key k` sends an idempotency key, `key k other` sends it with another request's digest.
//!
//! Every script is decided step by step beside the reference model, and then once more as a single batch, and step by
//! step with only one lot of each account loaded: answers and rows must be the same.

use std::collections::BTreeMap;
use std::str::FromStr;

use scrip_domain::command::{Command, Envelope, Idempotency, Movement};
use scrip_domain::coupon::{Benefit, Definition, TemplatePatch, Validity};
use scrip_domain::decide::Sweep;
use scrip_domain::id::IdSeed;
use scrip_domain::points::{Allocation, PointsValidity, Spendable, StreakBonus, TransactionType};
use scrip_domain::pricing::Rules;
use scrip_domain::task::{self, Period, TaskPatch};
use scrip_domain::tenant::{ApiKey, Scope, Tenant};
use scrip_domain::time::Window;
use scrip_domain::webhook::{DisabledReason, LogPosition, NewWebhook, WebhookChange};
use scrip_domain::{
    Answer, CouponId, Day, HoldId, KeyId, LotId, MemberId, OrderId, Outcome, TemplateId, TenantId, Timestamp,
    TransactionId, WebhookId,
};

use crate::generate::{HOUR, calendar};
use crate::harness::Harness;
use crate::model::{Model, ModelAnswer};

/// Runs a script; panics at the first line that gives something else.
pub fn run(text: &str) -> Harness {
    let mut script = Script::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if !line.is_empty() {
            script.line(line).unwrap_or_else(|error| panic!("line {}: {line}\n{error}", number + 1));
        }
    }
    script.finish()
}

#[derive(Debug, Clone, Default)]
struct Named {
    template: Option<TemplateId>,
    coupon: Option<CouponId>,
    lot: Option<LotId>,
    transaction: Option<TransactionId>,
    hold: Option<HoldId>,
    key: Option<KeyId>,
    webhook: Option<WebhookId>,
    member: Option<MemberId>,
}

struct Script {
    harness: Harness,
    model: Model,
    now: Timestamp,
    names: BTreeMap<String, Named>,
    envelopes: Vec<Envelope>,
    answers: Vec<Answer>,
}

type Line<T> = Result<T, String>;

/// What an answer or a row shows, by name; `""` holds the status.
type Facts = BTreeMap<&'static str, String>;

impl Script {
    fn new() -> Script {
        let mut script = Script {
            harness: Harness::default(),
            model: Model::default(),
            now: Timestamp(0),
            names: BTreeMap::new(),
            envelopes: Vec::new(),
            answers: Vec::new(),
        };
        for (label, grace) in [("A", 7), ("B", 0)] {
            let tenant = Tenant {
                id: tenant(label),
                name: label.into(),
                currency: "EUR".into(),
                time_zone: "UTC".into(),
                refund_grace_days: grace,
                created_at: script.now,
            };
            let envelope = script.envelope(tenant.id, Command::CreateTenant(tenant));
            script.execute(envelope).expect("a tenant");
        }
        script
    }

    fn line(&mut self, line: &str) -> Line<()> {
        let (asked, expected) = line.split_once("=>").ok_or("no => in it")?;
        let mut words: Vec<&str> = asked.split_whitespace().collect();
        let expected: Vec<&str> = expected.split_whitespace().collect();
        if let Some(time) = words[0].strip_prefix('@') {
            self.now = parse_time(time)?;
            words.remove(0);
        }
        let label = words[0].strip_suffix(':').map(str::to_owned);
        if label.is_some() {
            words.remove(0);
        }
        let tenant = tenant(label.as_deref().unwrap_or("A"));
        if matches!(words[0], "show" | "ledger" | "events") {
            return self.query(tenant, &words, &expected);
        }
        let name = (words.get(1) == Some(&"=")).then(|| words[0].to_owned());
        if name.is_some() {
            words.drain(..2);
        }
        let command = self.command(tenant, &words)?;
        let mut envelope = self.envelope(tenant, command);
        if let Some(at) = option(&words, "at") {
            envelope.at = parse_time(at)?;
        }
        if let Some(key) = option(&words, "key") {
            let mut digest = [0; 16];
            digest[..key.len()].copy_from_slice(key.as_bytes());
            let fingerprint = [u8::from(words.last() == Some(&"other")); 16];
            envelope.idempotency = Some(Idempotency { key: digest, fingerprint });
        }
        let member = match &envelope.command {
            Command::Grant { member_id, .. } | Command::Debit { member_id, .. } | Command::Hold { member_id, .. } => {
                Some(member_id.clone())
            }
            Command::Reverse { member_id, .. } | Command::CaptureHold { member_id, .. } => Some(member_id.clone()),
            Command::ReleaseHold { member_id, .. } => Some(member_id.clone()),
            Command::Transfer { from, .. } | Command::Merge { from, .. } => Some(from.clone()),
            Command::CheckIn { member_id, .. } | Command::CompleteTask { member_id, .. } => Some(member_id.clone()),
            _ => None,
        };
        let answer = self.execute(envelope)?;
        if let (Some(name), Answer::Accepted { outcome, .. }) = (name, &answer) {
            self.names.insert(name, Named { member, ..named(outcome) });
        }
        self.check(&answer, &expected)
    }

    fn envelope(&self, tenant: TenantId, command: Command) -> Envelope {
        // Later commands get larger ids, as they do in time.
        let seed = IdSeed { unix_ms: self.envelopes.len() as u64, random: self.envelopes.len() as u128 };
        Envelope { tenant, actor: None, command, idempotency: None, at: self.now, now: self.now, seed }
    }

    fn execute(&mut self, envelope: Envelope) -> Line<Answer> {
        let answer = self.harness.execute(std::slice::from_ref(&envelope)).remove(0);
        let (domain, model) = (ModelAnswer::of(&answer), self.model.apply(&envelope, &answer));
        if domain != model {
            return Err(format!("domain: {domain:?}\n model: {model:?}"));
        }
        self.envelopes.push(envelope);
        self.answers.push(answer.clone());
        Ok(answer)
    }

    fn finish(self) -> Harness {
        self.harness.check_all();
        let differences = self.harness.snapshot().differences(&self.model.snapshot());
        assert!(differences.is_empty(), "domain and model differ: {}", differences.join("\n"));
        let mut batched = Harness::default();
        assert_eq!(batched.execute(&self.envelopes), self.answers, "the answers of a batch are those of its commands");
        batched.rows.assert_same(&self.harness.rows, "a batch leaves what its commands leave one by one");
        let mut few_lots = Harness::with_lot_page(1);
        let answers: Vec<_> = self.envelopes.chunks(1).flat_map(|one| few_lots.execute(one)).collect();
        assert_eq!(answers, self.answers, "how many lots are loaded first changes no answer");
        few_lots.rows.assert_same(&self.harness.rows, "how many lots are loaded first changes no row");
        self.harness
    }

    fn command(&self, tenant: TenantId, words: &[&str]) -> Line<Command> {
        let name = words.get(1).copied().unwrap_or_default();
        let known = self.names.get(name).cloned().unwrap_or_default();
        let template_id = known.template.unwrap_or_else(|| id(TemplateId::PREFIX));
        let coupon_id = known.coupon.unwrap_or_else(|| id(CouponId::PREFIX));
        // The hold that keeps a grant for later has the id of its lot.
        let kept = known.lot.map(|lot| HoldId(lot.0));
        let hold_id = known.hold.or(kept).unwrap_or_else(|| id(HoldId::PREFIX));
        let owner = known.member.clone().or_else(|| option(words, "of").and_then(|member| member.parse().ok()));
        let owner = owner.unwrap_or_else(|| member("m1"));
        let until = option(words, "until").map(parse_time).transpose()?;
        let order = || words.get(2).and_then(|text| text.parse::<OrderId>().ok()).ok_or("an order is missing");
        let hook = |change| {
            let webhook_id = known.webhook.unwrap_or_else(|| id(WebhookId::PREFIX));
            Command::ChangeWebhook { webhook_id, change: Box::new(change) }
        };
        let amount = |place: usize| words.get(place).and_then(|word| word.parse::<i64>().ok());
        let movement = |kind: TransactionType| {
            let kind = match option(words, "as") {
                Some(text) => TransactionType::parse(text).ok_or("no such type")?,
                None => kind,
            };
            let points = amount(2).ok_or("points are missing")?;
            Ok::<_, String>(Movement { points, kind, reference: option(words, "for").map(str::to_owned), remark: None })
        };
        Ok(match words[0] {
            "api-key" => Command::CreateApiKey {
                key: ApiKey {
                    id: KeyId(uuid_of(self.envelopes.len() as u128)),
                    tenant_id: tenant,
                    name: "backend".into(),
                    scope: Scope::Service,
                    member_id: None,
                    expires_at: until,
                    revoked_at: None,
                    adjustment_limit: None,
                    created_at: self.now,
                },
                secret_digest: [0; 32],
            },
            "revoke-key" => Command::RevokeApiKey(known.key.unwrap_or_else(|| id(KeyId::PREFIX))),
            "webhook" => Command::CreateWebhook(Box::new(NewWebhook {
                url: option(words, "to").unwrap_or("https://shop.example/hook").to_owned(),
                types: types(words),
                description: String::new(),
                secret: "s1".into(),
                starts_after: LogPosition { tx: 0, ordinal: -1 },
            })),
            "hook-edit" => hook(WebhookChange::Edit {
                url: option(words, "to").map(str::to_owned),
                types: option(words, "types").map(|_| types(words)),
                description: None,
            }),
            "hook-enable" => hook(WebhookChange::Enable),
            "hook-disable" => {
                let reason = option(words, "because").map_or(Some(DisabledReason::Operator), DisabledReason::parse);
                hook(WebhookChange::Disable(reason.ok_or("no such reason")?))
            }
            "hook-rotate" => hook(WebhookChange::Rotate { secret: words[2].to_owned(), previous_until: until }),
            "hook-delete" => hook(WebhookChange::Delete),
            "template" => Command::CreateTemplate {
                definition: Box::new(definition(words)?),
                total_stock: option(words, "stock").map(parse_number).transpose()?,
            },
            "update" => {
                let expected_version = parse_number(option(words, "version").ok_or("a version is missing")?)?;
                let patch = TemplatePatch { expected_version, definition: definition(words)? };
                Command::UpdateTemplate { template_id, patch: Box::new(patch) }
            }
            "enable" | "disable" => Command::EnableTemplate { template_id, enabled: words[0] == "enable" },
            "stock" => Command::ChangeStock { template_id, change: amount(2).ok_or("a change is missing")? },
            "delete" => Command::DeleteTemplate(template_id),
            "claim" => {
                let member_level = option(words, "level").map(str::to_owned);
                Command::Claim { template_id, member_id: member(words[2]), member_level }
            }
            "lock" => Command::LockCoupon { coupon_id, order_id: order()?, expires_at: until },
            "use" => {
                let discount_amount = option(words, "discount").map(parse_number).transpose()?;
                Command::UseCoupon { coupon_id, order_id: order()?, discount_amount }
            }
            "unlock" => Command::UnlockCoupon { coupon_id, order_id: order()? },
            "return" => {
                let row = self.harness.rows.coupons.get(&(tenant, coupon_id));
                let template_id = row.map_or(template_id, |row| row.template_id);
                Command::ReturnCoupon { coupon_id, template_id, order_id: order()? }
            }
            "revoke" => Command::RevokeCoupon { coupon_id, reason: "a \"mistake\"".into() },
            "settle" => Command::SettleCoupon(coupon_id),
            "grant" => {
                let movement = movement(TransactionType::EarnOrder)?;
                let available_from = option(words, "from").map(parse_time).transpose()?;
                let spendable = Spendable { available_from, expires_at: until };
                Command::Grant { member_id: member(name), movement, spendable }
            }
            "transfer" => Command::Transfer {
                from: member(name),
                to: member(words[2]),
                points: amount(3).ok_or("points are missing")?,
                reference: option(words, "for").map(str::to_owned),
                remark: None,
            },
            "take-back" => {
                let transaction_id = known.transaction.unwrap_or_else(|| id(TransactionId::PREFIX));
                let line = self.harness.rows.transactions.get(&(tenant, transaction_id));
                let counterpart_id =
                    line.and_then(|line| line.counterpart_id).unwrap_or_else(|| id(TransactionId::PREFIX));
                let other = self.harness.rows.transactions.get(&(tenant, counterpart_id));
                let to = other.map_or_else(|| member("m2"), |other| other.member_id.clone());
                let points = amount(2);
                Command::ReverseTransfer { from: owner, to, transaction_id, counterpart_id, points, remark: None }
            }
            "merge" => Command::Merge { from: member(name), into: member(words[2]), remark: None },
            "check-in" => {
                let (day, calendar) = (self.day(), Box::new(calendar(self.now)));
                Command::CheckIn { member_id: member(name), day, calendar }
            }
            "task" => {
                Command::CreateTask { key: name.parse().map_err(|_| "no key")?, definition: Box::new(task(words)?) }
            }
            "edit-task" => {
                let expected_version = parse_number(option(words, "version").ok_or("a version is missing")?)?;
                let enabled = !words.contains(&"off");
                let patch = TaskPatch { expected_version, enabled, definition: task(words)? };
                Command::UpdateTask { key: name.parse().map_err(|_| "no key")?, patch: Box::new(patch) }
            }
            "delete-task" => Command::DeleteTask(name.parse().map_err(|_| "no key")?),
            "report" => Command::CompleteTask {
                member_id: member(words[2]),
                key: name.parse().map_err(|_| "no key")?,
                completion_id: words[3].parse().map_err(|_| "no id")?,
                day: self.day(),
                calendar: Box::new(calendar(self.now)),
            },
            "debit" => Command::Debit { member_id: member(name), movement: movement(TransactionType::UseOrder)? },
            "hold" => {
                let movement = movement(TransactionType::Hold)?;
                Command::Hold { member_id: member(name), movement, expires_at: until }
            }
            "capture" => Command::CaptureHold { member_id: owner, hold_id, points: amount(2) },
            "release" => Command::ReleaseHold { member_id: owner, hold_id },
            "reverse" => Command::Reverse {
                member_id: owner,
                transaction_id: known.transaction.unwrap_or_else(|| id(TransactionId::PREFIX)),
                points: amount(2),
                remark: None,
            },
            "rules" => Command::SetRules {
                expected_version: parse_number(name)?,
                rules: Box::new(rules(words)?),
                effective_from: option(words, "from").map(parse_time).transpose()?,
            },
            "expire" => Command::SettleAccount(member(name)),
            "sweep" => Command::RecordSweep(Sweep { points_expired: parse_number(name)?, ..Sweep::default() }),
            other => return Err(format!("no such command: {other}")),
        })
    }

    fn check(&self, answer: &Answer, expected: &[&str]) -> Line<()> {
        let got = self.shown(answer);
        match answer {
            Answer::Refused(rejection) if expected.first() == Some(&rejection.code()) => {
                let details = format!("{rejection:?}");
                for word in &expected[1..] {
                    let (name, value) = word.split_once('=').ok_or("a detail is name=value")?;
                    let time = value.strip_prefix('@').map(parse_time).transpose()?;
                    let value = time.map_or(value.to_owned(), |time| format!("{time:?}"));
                    if ![value.clone(), format!("Some({value})")]
                        .iter()
                        .any(|value| details.contains(&format!("{name}: {value}")))
                    {
                        return Err(format!("got: {details}"));
                    }
                }
                Ok(())
            }
            Answer::Accepted { .. } => expect_facts(&self.facts(answer), expected, &got),
            Answer::Refused(_) => Err(format!("got: {got}")),
        }
    }

    fn shown(&self, answer: &Answer) -> String {
        match answer {
            Answer::Refused(rejection) => format!("{} {rejection:?}", rejection.code()),
            Answer::Accepted { .. } => format!("{:?}", self.facts(answer)),
        }
    }

    fn facts(&self, answer: &Answer) -> Facts {
        let mut facts = Facts::new();
        let Answer::Accepted { outcome, replayed } = answer else { return facts };
        facts.insert("replayed", replayed.to_string());
        match outcome {
            Outcome::Tenant(_) | Outcome::Deleted => {}
            Outcome::ApiKey(row) => {
                facts.insert("revoked_at", row.revoked_at.map_or("none".into(), show_time));
            }
            Outcome::Template(row) => template_facts(&mut facts, row),
            Outcome::Rules(row) => {
                facts.insert("version", row.rules.version.to_string());
                facts.insert("newest", row.newest.to_string());
                facts.insert("from", show_time(row.effective_from));
            }
            Outcome::Webhook(row) => webhook_facts(&mut facts, row),
            Outcome::Coupon(row) => coupon_facts(&mut facts, row),
            Outcome::Transaction(row) => {
                facts.insert("", row.kind.as_str().into());
                facts.insert("points", row.points.to_string());
                facts.insert("before", row.balance_before.to_string());
                facts.insert("after", row.balance_after.to_string());
                facts.insert("frozen", row.frozen_after.to_string());
                facts.insert("debt", row.debt_after.to_string());
                facts.insert("sequence", row.sequence.to_string());
                facts.insert("from", self.parts(&row.allocations));
                facts.insert("expires_at", row.expires_at.map_or("none".into(), show_time));
                facts.insert("reference", row.reference.clone().unwrap_or_default());
                facts.insert("lot", if row.lot_id.is_some() { "new" } else { "none" }.into());
                facts.insert("recorded", show_time(row.recorded_at));
            }
            Outcome::Hold { hold, available, .. } => {
                self.hold_facts(&mut facts, hold);
                facts.insert("available", available.to_string());
            }
            Outcome::Settled(found) => {
                facts.insert("coupons", found.coupons_expired.to_string());
                facts.insert("locks", found.locks_released.to_string());
                facts.insert("holds", found.holds_released.to_string());
                facts.insert("points", found.points_expired.to_string());
            }
            Outcome::Swept(sweep) => {
                facts.insert("points", sweep.points_expired.to_string());
            }
            Outcome::Job(job) => {
                facts.insert("state", job.state.as_str().to_owned());
            }
            Outcome::Transfer(both) => {
                facts.insert("sent", both.sent.points.to_string());
                facts.insert("from", self.parts(&both.sent.allocations));
                facts.insert("received", both.received.points.to_string());
                facts.insert("lots", both.received.allocations.len().to_string());
                facts.insert("left", both.sent.balance_after.to_string());
                facts.insert("after", both.received.balance_after.to_string());
                facts.insert("debt", both.received.debt_after.to_string());
            }
            Outcome::CheckIn { check_in, again } => {
                facts.insert("day", check_in.day.to_string());
                facts.insert("streak", check_in.streak.to_string());
                facts.insert("points", check_in.points.to_string());
                facts.insert("again", again.to_string());
            }
            Outcome::Task(task) => {
                facts.insert("version", task.version.to_string());
                facts.insert("enabled", task.enabled.to_string());
            }
            Outcome::Report { report, again } => {
                facts.insert("step", format!("{}/{}", report.step, report.target));
                facts.insert("points", report.points.to_string());
                facts.insert("period", report.period_start.to_string());
                facts.insert("again", again.to_string());
            }
        }
        facts
    }

    /// The day of the script's clock, which starts on 1970-01-01.
    fn day(&self) -> Day {
        Day(self.now.0.div_euclid(24 * HOUR))
    }

    fn hold_facts(&self, facts: &mut Facts, hold: &scrip_domain::points::Hold) {
        facts.insert("", hold.status.as_str().into());
        facts.insert("points", hold.points.to_string());
        facts.insert("captured", hold.captured.to_string());
        facts.insert("released", hold.released.to_string());
        facts.insert("from", self.parts(&hold.allocations));
        facts.insert("expires_at", show_time(hold.expires_at));
        facts.insert("closed_at", hold.closed_at.map_or("none".into(), show_time));
        facts.insert("reference", hold.reference.clone().unwrap_or_default());
    }

    /// Allocations by the names of their lots: `g1:5,g2:7`.
    fn parts(&self, allocations: &[Allocation]) -> String {
        let name = |lot: LotId| {
            let known = self.names.iter().find(|(_, named)| named.lot == Some(lot));
            known.map_or("new", |(name, _)| name)
        };
        let parts = allocations.iter().map(|part| format!("{}:{}", name(part.lot_id), part.points));
        parts.collect::<Vec<_>>().join(",")
    }

    fn query(&self, tenant: TenantId, words: &[&str], expected: &[&str]) -> Line<()> {
        let rows = &self.harness.rows;
        let list = |got: Vec<String>| {
            if got == expected { Ok(()) } else { Err(format!("got: {}", got.join(" "))) }
        };
        let named = words.get(2).or(words.get(1)).and_then(|name| self.names.get(*name)).cloned().unwrap_or_default();
        let mut facts = Facts::new();
        match (words[0], words[1]) {
            ("ledger", of) => {
                let lines = self.harness.ledger(tenant, &member(of));
                return list(
                    lines
                        .iter()
                        .map(|line| format!("{}{:+}@{}", line.kind.as_str(), line.points, show_time(line.occurred_at)))
                        .collect(),
                );
            }
            ("events", of) => {
                let subjects = [
                    named.coupon.map(|id| id.0),
                    named.hold.map(|id| id.0),
                    named.template.map(|id| id.0),
                    named.transaction.map(|id| id.0),
                    named.webhook.map(|id| id.0),
                ];
                let own = rows.events.iter().filter(|(owner, event)| {
                    *owner == tenant
                        && (subjects.contains(&Some(event.subject))
                            || event.member_id.as_ref().is_some_and(|id| id.as_str() == of))
                });
                return list(
                    own.map(|(_, event)| format!("{}@{}", event.kind.as_str(), show_time(event.occurred_at))).collect(),
                );
            }
            ("show", "account") => {
                let row = rows.accounts.get(&(tenant, member(words[2]))).ok_or("no such account")?;
                facts.insert("total", row.total_points.to_string());
                facts.insert("available", row.available.to_string());
                facts.insert("frozen", row.frozen.to_string());
                facts.insert("used", row.used.to_string());
                facts.insert("expired", row.expired.to_string());
                facts.insert("revoked", row.revoked.to_string());
                facts.insert("debt", row.debt.to_string());
                facts.insert("sequence", row.sequence.to_string());
                facts.insert("created_at", show_time(row.created_at));
                facts.insert("updated_at", show_time(row.updated_at));
                facts.insert("merged_into", row.merged_into.as_ref().map_or("none".into(), ToString::to_string));
            }
            ("show", "lot") => {
                let id = named.lot.ok_or("no such lot")?;
                let row = rows.lots.values().find_map(|lots| lots.get(&id)).ok_or("no such lot")?;
                facts.insert("points", row.points.to_string());
                facts.insert("remaining", row.remaining.to_string());
                facts.insert("held", row.held.to_string());
                facts.insert("used", row.used.to_string());
                facts.insert("expired", row.expired.to_string());
                facts.insert("revoked", row.revoked.to_string());
                facts.insert("moved", row.moved.to_string());
                facts.insert("available_from", show_time(row.available_from));
                facts.insert("expires_at", show_time(row.expires_at));
            }
            ("show", "hold") => {
                let id = named.hold.ok_or("no such hold")?;
                let row = rows.holds.values().find_map(|holds| holds.get(&id)).ok_or("no such hold")?;
                self.hold_facts(&mut facts, row);
            }
            ("show", "coupon") => {
                let key = (tenant, named.coupon.ok_or("no such coupon")?);
                coupon_facts(&mut facts, rows.coupons.get(&key).ok_or("no such coupon")?);
            }
            ("show", "webhook") => {
                let key = (tenant, named.webhook.ok_or("no such webhook")?);
                let row = rows.webhooks.get(&key).ok_or("no such webhook")?;
                webhook_facts(&mut facts, row);
                let previous = row.secrets.previous.as_ref();
                facts.insert("secret", row.secrets.current.clone());
                facts.insert(
                    "previous",
                    previous.map_or("none".into(), |(text, until)| format!("{text}@{}", show_time(*until))),
                );
            }
            ("show", "template") => {
                let id = named.template.ok_or("no such template")?;
                template_facts(&mut facts, &self.harness.template(tenant, id).ok_or("no such template")?);
            }
            ("show", other) => return Err(format!("nothing to show: {other}")),
            _ => unreachable!("only these are queries"),
        }
        expect_facts(&facts, expected, &format!("{facts:?}"))
    }
}

fn template_facts(facts: &mut Facts, row: &scrip_domain::coupon::Template) {
    facts.insert("version", row.version.to_string());
    facts.insert("enabled", row.enabled.to_string());
    facts.insert("total", row.total_stock.map_or("none".into(), |stock| stock.to_string()));
    facts.insert("remaining", row.remaining_stock.map_or("none".into(), |stock| stock.to_string()));
    facts.insert("claimed", row.claimed_count.to_string());
    facts.insert("used", row.used_count.to_string());
    facts.insert("created_at", show_time(row.created_at));
    facts.insert("updated_at", show_time(row.updated_at));
}

fn webhook_facts(facts: &mut Facts, row: &scrip_domain::webhook::Webhook) {
    facts.insert("", row.disabled.map_or("ENABLED", DisabledReason::as_str).into());
    facts.insert("url", row.url.clone());
    facts.insert("types", row.types.join(","));
    facts.insert("created_at", show_time(row.created_at));
    facts.insert("updated_at", show_time(row.updated_at));
}

fn coupon_facts(facts: &mut Facts, row: &scrip_domain::coupon::Coupon) {
    facts.insert("", row.status.as_str().into());
    facts.insert("sequence", row.sequence.to_string());
    facts.insert("version", row.template_version.to_string());
    facts.insert("from", show_time(row.valid_from));
    facts.insert("until", show_time(row.valid_until));
    facts.insert("order", row.order_id.as_ref().map_or("none".into(), ToString::to_string));
    facts.insert("locked_until", row.locked_until.map_or("none".into(), show_time));
    facts.insert("discount", row.discount_amount.map_or("none".into(), |amount| amount.to_string()));
    facts.insert("used_at", row.used_at.map_or("none".into(), show_time));
}

/// Each expected word must be among the facts: `name=value`, a status, `ok` or `replayed`. An answer is no replay
/// unless the line says so.
fn expect_facts(facts: &Facts, expected: &[&str], got: &str) -> Line<()> {
    if expected.is_empty() {
        return Err("nothing is expected".into());
    }
    let replayed = expected.contains(&"replayed");
    if facts.get("replayed").is_some_and(|value| *value != replayed.to_string()) {
        return Err(format!("got: {got}"));
    }
    for word in expected.iter().filter(|word| !matches!(**word, "ok" | "replayed")) {
        let (name, value) = word.split_once('=').unwrap_or(("", word));
        if facts.get(name).map(String::as_str) != Some(value) {
            return Err(format!("{word} is wrong; got: {got}"));
        }
    }
    Ok(())
}

fn named(outcome: &Outcome) -> Named {
    match outcome {
        Outcome::ApiKey(row) => Named { key: Some(row.id), ..Named::default() },
        Outcome::Webhook(row) => Named { webhook: Some(row.id), ..Named::default() },
        Outcome::Template(row) => Named { template: Some(row.id), ..Named::default() },
        Outcome::Coupon(row) => Named { coupon: Some(row.id), ..Named::default() },
        Outcome::Transaction(row) => Named { transaction: Some(row.id), lot: row.lot_id, ..Named::default() },
        Outcome::Hold { hold, transaction_id, .. } => {
            Named { hold: Some(hold.id), transaction: Some(*transaction_id), ..Named::default() }
        }

        Outcome::Transfer(both) => {
            let lot = both.received.allocations.first().map(|part| part.lot_id);
            Named { transaction: Some(both.sent.id), lot, ..Named::default() }
        }
        Outcome::CheckIn { check_in, .. } => Named { transaction: Some(check_in.transaction_id), ..Named::default() },
        Outcome::Report { report, .. } => Named { transaction: report.transaction_id, ..Named::default() },
        Outcome::Tenant(_)
        | Outcome::Rules(_)
        | Outcome::Deleted
        | Outcome::Settled(_)
        | Outcome::Swept(_)
        | Outcome::Job(_) => Named::default(),
        Outcome::Task(_) => Named::default(),
    }
}

fn definition(words: &[&str]) -> Line<Definition> {
    let time = |name| option(words, name).map(parse_time).transpose();
    let number = |name, default| option(words, name).map_or(Ok(default), parse_number);
    let validity = match words.iter().position(|word| *word == "valid") {
        Some(place) => {
            let bound = |offset: usize| parse_time(words.get(place + offset).copied().unwrap_or_default());
            Validity::Fixed { starts_at: bound(1)?, ends_at: bound(2)? }
        }
        None => Validity::Relative { days: number("days", 30)? as u32 },
    };
    let name = option(words, "name").unwrap_or("T");
    Ok(Definition {
        member_levels: option(words, "levels").map_or(Vec::new(), |all| all.split(',').map(str::to_owned).collect()),
        distribution: Window { starts_at: time("opens")?, ends_at: time("closes")? },
        limit_per_member: number("limit", 1)?,
        refund_extend_days: number("extend", 0)? as u32,
        ..Definition::new(name, Benefit::AmountOff { amount: 500 }, validity)
    })
}

/// `earn 2/100` gives 2 points for 100 minor units, `redeem 10/100` takes 10 points for 100.
fn rules(words: &[&str]) -> Line<Rules> {
    let ratio = |name| {
        let ratio = option(words, name).unwrap_or("1/1").split_once('/').ok_or("no ratio")?;
        Ok::<_, String>((parse_number(ratio.0)?, parse_number(ratio.1)?))
    };
    let mut rules = Rules::default();
    (rules.points.earn.ratio, rules.points.earn.base) = ratio("earn")?;
    (rules.points.redeem.ratio, rules.points.redeem.base) = ratio("redeem")?;
    rules.points.redeem.max_percent = None;
    rules.points.check_in.enabled = !words.contains(&"no-check-ins");
    if let Some(bonuses) = option(words, "bonus") {
        let one = |text: &str| {
            let (days, points) = text.split_once(':').ok_or("a bonus is days:points")?;
            Ok::<_, String>(StreakBonus { days: parse_number(days)? as u32, points: parse_number(points)? })
        };
        rules.points.check_in.streak_bonuses = bonuses.split(',').map(one).collect::<Result<_, _>>()?;
    }
    if let Some(days) = option(words, "days") {
        rules.points.validity = PointsValidity::Days { days: parse_number(days)? as u32 };
    }
    Ok(rules)
}
fn types(words: &[&str]) -> Vec<String> {
    option(words, "types").map_or(Vec::new(), |all| all.split(',').map(str::to_owned).collect())
}
fn task(words: &[&str]) -> Line<task::Definition> {
    let time = |name| option(words, name).map(parse_time).transpose();
    let number = |name, default| option(words, name).map_or(Ok(default), parse_number);
    Ok(task::Definition {
        name: "Task".into(),
        description: String::new(),
        points: number("points", 5)?,
        period: Period::parse(option(words, "per").unwrap_or("ONCE")).ok_or("no such period")?,
        limit_per_period: number("limit", 1)?,
        total_limit: option(words, "total").map(parse_number).transpose()?,
        target: number("target", 1)?,
        event_type: None,
        window: Window { starts_at: time("opens")?, ends_at: time("closes")? },
    })
}

/// The word after `name`.
fn option<'a>(words: &[&'a str], name: &str) -> Option<&'a str> {
    words.iter().skip(1).position(|word| *word == name).and_then(|place| words.get(place + 2).copied())
}

fn parse_number(text: &str) -> Line<i64> {
    text.parse().map_err(|_| format!("no number: {text}"))
}

/// `5` is hour 5, `5-` the microsecond before it, `2d` the second day's end.
fn parse_time(text: &str) -> Line<Timestamp> {
    let (text, back) = text.strip_suffix('-').map_or((text, 0), |text| (text, 1));
    let (text, hours) = text.strip_suffix('d').map_or((text, 1), |text| (text, 24));
    Ok(Timestamp(parse_number(text)? * hours * HOUR - back))
}

fn show_time(time: Timestamp) -> String {
    match (time.0.rem_euclid(HOUR), time.0.div_euclid(HOUR)) {
        _ if time == Timestamp::NEVER => "never".into(),
        _ if time == Timestamp::MAX => "last".into(),
        (0, hour) => hour.to_string(),
        (rest, hour) if rest == HOUR - 1 => format!("{}-", hour + 1),
        _ => format!("{}us", time.0),
    }
}

fn tenant(label: &str) -> TenantId {
    TenantId(uuid_of(u128::from(label.as_bytes()[0])))
}

fn member(text: &str) -> MemberId {
    text.parse().expect("a member's id")
}

/// An id that nothing has.
fn id<T: FromStr<Err: std::fmt::Debug>>(prefix: &str) -> T {
    format!("{prefix}{:032x}", u128::MAX).parse().expect("a well-formed id")
}

fn uuid_of(number: u128) -> uuid::Uuid {
    uuid::Uuid::from_u128(number)
}
