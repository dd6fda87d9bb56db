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
use scrip_domain::coupon::{
    Benefit, CodeBatch, CodeDigest, CodeKind, CodeStatus, CompensationStatus, CouponStatus, Definition, ImportedCoupon,
    NewCodeBatch, TemplatePatch, Validity,
};
use scrip_domain::decide::Sweep;
use scrip_domain::id::IdSeed;
use scrip_domain::order::{Order, Quoted, RefundRequest, Reservation};
use scrip_domain::points::{
    AdjustmentRequest, Allocation, Columns, DebtPolicy, ImportedAccount, ImportedAction, ImportedStep, PointsValidity,
    ReminderPage, Spendable, StreakBonus, TransactionType, rehearse,
};
use scrip_domain::pricing::{Basket, Rules};
use scrip_domain::task::{self, Period, TaskPatch};
use scrip_domain::tenant::{ApiKey, Scope, Tenant};
use scrip_domain::time::{Calendar, LocalTime, Window};
use scrip_domain::webhook::{DisabledReason, LogPosition, NewWebhook, WebhookChange};
use scrip_domain::{
    AdjustmentId, Answer, CodeBatchId, CompensationId, CouponId, Day, HoldId, KeyId, LotId, MemberId, OrderId, Outcome,
    TemplateId, TenantId, Timestamp, TransactionId, WebhookId,
};

use crate::generate::{HOUR, set_calendar};
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
    batch: Option<CodeBatchId>,
    lot: Option<LotId>,
    transaction: Option<TransactionId>,
    hold: Option<HoldId>,
    key: Option<KeyId>,
    webhook: Option<WebhookId>,
    order: Option<OrderId>,
    case: Option<CompensationId>,
    adjustment: Option<AdjustmentId>,
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
                program: None,
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
            set_calendar(&mut envelope.command, envelope.at);
        }
        if let Some(name) = option(&words, "by") {
            envelope.actor = self.names.get(name).and_then(|known| known.key);
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
            Command::Adjust(asked) => Some(asked.member_id.clone()),
            Command::ReserveOrder(asked) => Some(asked.member_id.clone()),
            Command::PayOrder { member_id, .. } | Command::RefundOrder { member_id, .. } => Some(member_id.clone()),
            Command::Reverse { member_id, .. } | Command::CaptureHold { member_id, .. } => Some(member_id.clone()),
            Command::ReleaseHold { member_id, .. } => Some(member_id.clone()),
            Command::Transfer { from, .. } | Command::Merge { from, .. } => Some(from.clone()),
            Command::CheckIn { member_id, .. } | Command::CompleteTask { member_id, .. } => Some(member_id.clone()),
            Command::ImportAccount(imported) => Some(imported.member_id.clone()),
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
        let batch_id = known.batch.unwrap_or_else(|| id(CodeBatchId::PREFIX));
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
        let named_order = || {
            let named = known.order.clone().or_else(|| name.parse::<OrderId>().ok());
            named.ok_or("an order is missing")
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
            "archive" => Command::ArchiveTemplate(template_id),
            "delete" => Command::DeleteTemplate(template_id),
            "codes" => {
                let kind = words.get(2).and_then(|kind| CodeKind::parse(kind)).ok_or("a kind is missing")?;
                let max_uses = match (option(words, "uses"), kind) {
                    (None, CodeKind::Shared) => None,
                    (None, _) => Some(1),
                    (Some(uses), _) => Some(parse_number(uses)?),
                };
                Command::CreateCodeBatch(Box::new(NewCodeBatch {
                    template_id,
                    kind,
                    name: "Codes".into(),
                    code_count: option(words, "count").map_or(Ok(0), parse_number)?,
                    max_uses,
                    pattern: "###".into(),
                    alphabet: "ABC".into(),
                    check_character: false,
                    key_id: 1,
                    nonce: (kind == CodeKind::Unique).then_some([1; 16]),
                    shared: option(words, "text").map(code_digest),
                }))
            }
            "add" => Command::AddCodes {
                batch_id,
                from_number: option(words, "from").map_or(Ok(0), parse_number)?,
                digests: words[2].split(',').map(code_digest).collect(),
                max_uses: Vec::new(),
                holders: Vec::new(),
                last: words.last() == Some(&"last"),
            },
            "switch" => Command::ChangeCodeBatch { batch_id, status: code_status(words[2])? },
            "switch-code" => {
                Command::ChangeCode { batch_id, digest: code_digest(words[2]), status: code_status(words[3])? }
            }
            "assign" => Command::AssignCode {
                batch_id,
                digest: code_digest(words[2]),
                member_id: Some(words[3]).filter(|name| *name != "anybody").map(member),
            },
            "seal" => Command::SealCodeBatch(batch_id),
            // Codes know their template; a script may name another.
            "redeem" => {
                let rows = &self.harness.rows.code_batches;
                let of_batch = rows.get(&(tenant, batch_id)).map_or(template_id, |row| row.template_id);
                let other = option(words, "for").and_then(|name| self.names.get(name)).and_then(|named| named.template);
                Command::ClaimCode {
                    digest: code_digest(words[2]),
                    batch_id,
                    template_id: other.unwrap_or(of_batch),
                    member_id: member(words[3]),
                    member_level: option(words, "level").map(str::to_owned),
                }
            }
            "transfer" => {
                let row = self.harness.rows.coupons.get(&(tenant, coupon_id));
                let template_id = row.map_or(template_id, |row| row.template_id);
                let reason = option(words, "because").map(str::to_owned);
                Command::TransferCoupon { coupon_id, template_id, to_member_id: member(words[2]), reason }
            }
            "adopt-template" => Command::ImportTemplate {
                template_id: old_id(name),
                definition: Box::new(definition(words)?),
                total_stock: option(words, "stock").map(parse_number).transpose()?,
                enabled: !words.contains(&"disabled"),
            },
            "adopt" => Command::ImportCoupon(Box::new(ImportedCoupon {
                coupon_id: old_id(name),
                template_id: old_id(words[2]),
                member_id: member(words[3]),
                status: CouponStatus::parse(words[4]).ok_or("no such status")?,
                claimed_at: self.now,
                valid_from: self.now,
                valid_until: until.ok_or("an end is missing")?,
                order_id: option(words, "order").and_then(|order| order.parse().ok()),
                used_at: option(words, "used").map(parse_time).transpose()?,
                discount_amount: option(words, "discount").map(parse_number).transpose()?,
            })),
            "extend" => Command::ExtendCoupon { coupon_id, valid_until: parse_time(words[2])? },
            "claim" => {
                let member_level = option(words, "level").map(str::to_owned);
                Command::Claim { template_id, member_id: member(words[2]), member_level }
            }
            "exchange" => {
                let member_level = option(words, "level").map(str::to_owned);
                Command::Exchange { template_id, member_id: member(words[2]), member_level }
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
                let spendable = Spendable { available_from, expires_at: until, ..Spendable::default() };
                Command::Grant { member_id: member(name), movement, spendable }
            }
            "give" => Command::Transfer {
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
                // Days count from 0.
                let missed = option(words, "day").map(|day| parse_number(day).map(Day)).transpose()?;
                Command::CheckIn { member_id: member(name), missed, calendar: self.calendar() }
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
                calendar: self.calendar(),
            },
            "adjust" => Command::Adjust(Box::new(AdjustmentRequest {
                member_id: member(name),
                points: amount(2).ok_or("points are missing")?,
                reason: "why".into(),
                reference: None,
                expires_at: until,
            })),
            "approve" | "reject" => {
                let adjustment_id = known.adjustment.unwrap_or_else(|| id(AdjustmentId::PREFIX));
                if words[0] == "approve" {
                    Command::ApproveAdjustment { member_id: owner, adjustment_id }
                } else {
                    Command::RejectAdjustment { adjustment_id, reason: "why not".into() }
                }
            }
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
            "reserve" => Command::ReserveOrder(Box::new(self.reservation(words)?)),
            "pay" => Command::PayOrder { member_id: owner, order_id: named_order()?, calendar: self.calendar() },
            "cancel" => Command::CancelOrder { member_id: owner, order_id: named_order()?, reason: None },
            "refund" => {
                let refund = Box::new(refund_request(words)?);
                Command::RefundOrder { member_id: owner, order_id: named_order()?, refund }
            }
            "confirm" => {
                Command::ConfirmOrder { member_id: owner, order_id: named_order()?, calendar: self.calendar() }
            }
            "settle-order" => {
                Command::SettleOrder { member_id: owner, order_id: named_order()?, calendar: self.calendar() }
            }
            "close" => {
                let status = option(words, "as").and_then(CompensationStatus::parse).ok_or("a status is missing")?;
                let compensation_id = known.case.unwrap_or_else(|| id(CompensationId::PREFIX));
                Command::CloseCompensation { compensation_id, status, remark: "done".into() }
            }
            "rules" => Command::SetRules {
                expected_version: parse_number(name)?,
                rules: Box::new(rules(words)?),
                effective_from: option(words, "from").map(parse_time).transpose()?,
            },
            "expire" => Command::SettleAccount(member(name)),
            "take-over" => Command::ImportAccount(Box::new(self.imported(tenant, words)?)),
            // `remind 7 1..9 a,b`: the lots of a and b, if they expire after 1 and up to 9.
            "remind" => {
                let (from, until) = words[2].split_once("..").ok_or("no span")?;
                let last = LotId(uuid_of(u128::MAX));
                let lots = words[3].split(',').map(|name| {
                    let known = self.names.get(name).cloned().unwrap_or_default();
                    (known.member.unwrap_or_else(|| member("m1")), known.lot.unwrap_or_else(|| id(LotId::PREFIX)))
                });
                Command::RemindExpiry(Box::new(ReminderPage {
                    days_before: parse_number(name)? as u32,
                    from: (parse_time(from)?, last),
                    until: (parse_time(until)?, last),
                    lots: lots.collect(),
                }))
            }
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
            Outcome::Order(row) => order_facts(&mut facts, row),
            Outcome::Refund(row) => {
                facts.insert("", row.order_status.as_str().into());
                facts.insert("amount", row.amount.to_string());
                facts.insert("freight", row.freight.to_string());
                facts.insert("returned", row.points_returned.to_string());
                facts.insert("clawed", row.points_clawed_back.to_string());
                facts.insert("owed", row.points_owed.to_string());
                facts.insert("forgiven", row.points_forgiven.to_string());
                let coupons = row.coupons.iter().map(|one| one.status.as_str()).collect::<Vec<_>>();
                facts.insert("coupons", coupons.join(","));
            }
            Outcome::Adjustment(row) => {
                facts.insert("", row.status.as_str().into());
                facts.insert("points", row.points.to_string());
                facts.insert("made", row.transaction_id.is_some().to_string());
            }
            Outcome::Compensation(row) => {
                facts.insert("", row.status.as_str().into());
                facts.insert("reason", row.reason.as_str().into());
            }
            Outcome::Rules(row) => {
                facts.insert("version", row.rules.version.to_string());
                facts.insert("newest", row.newest.to_string());
                facts.insert("from", show_time(row.effective_from));
            }
            Outcome::Webhook(row) => webhook_facts(&mut facts, row),
            Outcome::Coupon(row) => coupon_facts(&mut facts, row),
            Outcome::Exchange(made) => {
                coupon_facts(&mut facts, &made.coupon);
                facts.insert("points", made.transaction.points.to_string());
                facts.insert("after", made.transaction.balance_after.to_string());
            }
            Outcome::CodeBatch(row) => batch_facts(&mut facts, row),
            Outcome::CodesAdded { batch, known } => {
                batch_facts(&mut facts, batch);
                facts.insert("known", known.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
            }
            Outcome::Transaction(row) => {
                facts.insert("", row.kind.as_str().into());
                facts.insert("points", row.points.to_string());
                facts.insert("before", row.balance_before.to_string());
                facts.insert("after", row.balance_after.to_string());
                facts.insert("frozen", row.frozen_after.to_string());
                facts.insert("debt", row.debt_after.to_string());
                facts.insert("forgiven", row.points_forgiven.to_string());
                facts.insert("rules", row.rules_version.map_or("none".into(), |version| version.to_string()));
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
                facts.insert("orders", found.orders_released.to_string());
                facts.insert("granted", found.points_granted.to_string());
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
                facts.insert("bonus", check_in.bonus.to_string());
                facts.insert("made-up", check_in.made_up.to_string());
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
            Outcome::Announced(told) => {
                facts.insert("told", told.to_string());
            }
            Outcome::Imported(made) => {
                facts.insert("total", made.columns.total_points.to_string());
                facts.insert("available", made.columns.available.to_string());
                facts.insert("frozen", made.columns.frozen.to_string());
                facts.insert("used", made.columns.used.to_string());
                facts.insert("expired", made.columns.expired.to_string());
                facts.insert("revoked", made.columns.revoked.to_string());
                facts.insert("steps", made.lines.len().to_string());
            }
            Outcome::Bulk(bulk) => {
                facts.insert("state", bulk.status.as_str().to_owned());
            }
        }
        facts
    }

    /// `take-over m1 +100@1/9 +50@2 -30@3 h20@3 h20^0@3 r^3@4 c^4@4 b10^2@5`: steps with their time. A grant may say when it
    /// ends, `-` may deduct (`d`), a hold may name its grant; releases, captures, refunds and debts (`o`) name their step. What they come to
    /// is expected, unless `expecting 7` says what shall be available.
    fn imported(&self, tenant: TenantId, words: &[&str]) -> Line<ImportedAccount> {
        let mut steps = Vec::new();
        for word in words[2..].iter().take_while(|word| word.contains('@')) {
            let (what, time) = word.split_once('@').ok_or("no time")?;
            let (time, end) = time.split_once('/').map_or((time, None), |(time, end)| (time, Some(end)));
            let (what, place) = what.split_once('^').map_or((what, None), |(what, place)| (what, Some(place)));
            let (letter, points) = what.split_at(1);
            let place = place.map(|place| place.parse::<usize>().map_err(|_| "no step"));
            let named = || place.ok_or("a step is missing")?;
            let movement = |kind| {
                let points = parse_number(points)?;
                Ok::<_, String>(Movement { points, kind, reference: None, remark: None })
            };
            let action = match letter {
                "+" => ImportedAction::Grant {
                    movement: movement(TransactionType::EarnOrder)?,
                    expires_at: end.map(parse_time).transpose()?,
                },
                "-" => ImportedAction::Debit { movement: movement(TransactionType::UseOrder)? },
                "d" => ImportedAction::Debit { movement: movement(TransactionType::DeductAdmin)? },
                "h" => {
                    ImportedAction::Hold { movement: movement(TransactionType::Hold)?, of_grant: place.transpose()? }
                }
                "r" => ImportedAction::Release { hold: named()? },
                "o" => ImportedAction::Owe { grant: named()?, points: parse_number(points)?, remark: None },
                "c" => ImportedAction::Capture { hold: named()? },
                "b" => ImportedAction::Refund { debit: named()?, points: parse_number(points)?, remark: None },
                _ => return Err("no such step".into()),
            };
            steps.push(ImportedStep { at: parse_time(time)?, action });
        }
        let mut imported = ImportedAccount { member_id: member(words[1]), steps, expected: Columns::default() };
        let envelope = self.envelope(tenant, Command::SettleAccount(imported.member_id.clone()));
        if let Ok(rehearsal) = rehearse(&envelope, &imported) {
            imported.expected = rehearsal.made.columns;
        }
        if let Some(available) = option(words, "expecting") {
            imported.expected.available = parse_number(available)?;
        }
        Ok(imported)
    }

    /// The day of the script's clock, which starts on 1970-01-01.
    /// The day, and months of 30 days and years of 365 from the first hour.
    fn calendar(&self) -> std::sync::Arc<Calendar> {
        let ends = |days: i64, count: i64| (1..=count).map(|n| Timestamp(n * days * 24 * HOUR)).collect();
        Calendar { month_ends: ends(30, 25), year_ends: ends(365, 6), day: self.day() }.into()
    }

    fn day(&self) -> Day {
        Day(self.now.0.div_euclid(24 * HOUR))
    }

    /// `reserve o1 m1 100x2 50x1r0 freight 500 with c1,c2 points 300 until 5`: lines of price, units and points ratio, whose
    /// items are a, b, c and so on.
    fn reservation(&self, words: &[&str]) -> Line<Reservation> {
        let goods = words.iter().skip(3).take_while(|word| word.contains('x'));
        let line = |(word, item): (&&str, char)| {
            let (price, rest) = word.split_once('x').ok_or("no goods")?;
            let (units, ratio) = rest.split_once('r').unwrap_or((rest, "100"));
            Ok::<_, String>(scrip_domain::pricing::Line {
                item_id: item.to_string(),
                product_id: format!("p-{item}"),
                sku_id: None,
                category_ids: Vec::new(),
                unit_price: parse_number(price)?,
                quantity: parse_number(units)?,
                points_ratio: parse_number(ratio)? as u16,
            })
        };
        let lines = goods.zip('a'..='z').map(line).collect::<Line<Vec<_>>>()?;
        let coupons = option(words, "with").map_or(Vec::new(), |names| names.split(',').collect());
        let coupon = |name: &&str| {
            let known = self.names.get(*name).and_then(|named| named.coupon);
            known.unwrap_or_else(|| id(CouponId::PREFIX))
        };
        // `quote 2/9`: as quoted now, by version 2 of the rules, until 9.
        let quoted = |text: &str| {
            let (version, until) = text.split_once('/').ok_or("no version and end of the quote")?;
            Ok::<_, String>(Quoted {
                rules_version: parse_number(version)?,
                at: self.now,
                expires_at: parse_time(until)?,
            })
        };
        Ok(Reservation {
            quoted: option(words, "quote").map(quoted).transpose()?,
            order_id: words[1].parse().map_err(|_| "an order is missing")?,
            member_id: member(words[2]),
            basket: Basket {
                lines,
                freight: option(words, "freight").map_or(Ok(0), parse_number)?,
                member_level: option(words, "level").map(str::to_owned),
                local_time: LocalTime { day: 0, minute: 0 },
                attributes: Default::default(),
                member_attributes: Default::default(),
            },
            coupon_ids: coupons.iter().map(coupon).collect(),
            points: option(words, "points").map_or(Ok(0), parse_number)?,
            expires_at: option(words, "until").map_or(Ok(Timestamp(self.now.0 + HOUR)), parse_time)?,
        })
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
                    named.batch.map(|id| id.0),
                    named.hold.map(|id| id.0),
                    named.template.map(|id| id.0),
                    named.transaction.map(|id| id.0),
                    named.webhook.map(|id| id.0),
                    named.adjustment.map(|id| id.0),
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
                for (name, points) in ["in_day", "in_week", "in_month"].into_iter().zip(row.earned.points) {
                    facts.insert(name, points.to_string());
                }
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
                facts.insert("idle", row.idle_days.map_or("none".into(), |days| days.to_string()));
            }
            ("show", "hold") => {
                let id = named.hold.ok_or("no such hold")?;
                let row = rows.holds.values().find_map(|holds| holds.get(&id)).ok_or("no such hold")?;
                self.hold_facts(&mut facts, row);
            }
            ("show", "order") => {
                let key = (tenant, named.order.ok_or("no such order")?);
                order_facts(&mut facts, rows.orders.get(&key).ok_or("no such order")?);
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
            ("show", "batch") => {
                let key = (tenant, named.batch.ok_or("no such batch")?);
                let row = rows.code_batches.get(&key).ok_or("no such batch")?;
                batch_facts(&mut facts, row);
                facts.insert("nonce", if row.nonce.is_some() { "kept" } else { "gone" }.into());
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
    facts.insert("committed", row.committed_amount.to_string());
    for (name, count) in ["day", "week", "month"].into_iter().zip(row.counts) {
        let show = |count: scrip_domain::coupon::PeriodCount| {
            format!("{}@{}", count.claimed, show_time(count.bounds.starts_at))
        };
        facts.insert(name, count.map_or("none".into(), show));
    }
    facts.insert("batches", row.code_batch_count.to_string());
    facts.insert("archived_at", row.archived_at.map_or("none".into(), show_time));
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
    facts.insert("source", row.source.as_str().into());
    facts.insert("member", row.member_id.to_string());
    facts.insert("version", row.template_version.to_string());
    facts.insert("from", show_time(row.valid_from));
    facts.insert("until", show_time(row.valid_until));
    facts.insert("order", row.order_id.as_ref().map_or("none".into(), ToString::to_string));
    facts.insert("locked_until", row.locked_until.map_or("none".into(), show_time));
    facts.insert("discount", row.discount_amount.map_or("none".into(), |amount| amount.to_string()));
    facts.insert("used_at", row.used_at.map_or("none".into(), show_time));
}

fn order_facts(facts: &mut Facts, row: &Order) {
    let quote = &row.quote;
    facts.insert("", row.status.as_str().into());
    facts.insert("original", quote.original_amount.to_string());
    facts.insert("coupon", quote.coupon_discount.to_string());
    facts.insert("freight_off", quote.freight_discount.to_string());
    facts.insert("by_points", quote.points_discount.to_string());
    facts.insert("pay", quote.pay_amount.to_string());
    facts.insert("spent", quote.points_effective.to_string());
    facts.insert("earns", quote.points_to_earn.to_string());
    facts.insert("granted", row.points_granted.to_string());
    facts.insert("cut", row.points_cut().to_string());
    let by = row.earn_cut.as_ref().map(|cut| cut.by.as_str());
    facts.insert("by", by.unwrap_or("none").to_owned());
    facts.insert("refunded", row.refunded_amount.to_string());
    facts.insert("returned", row.points_returned.to_string());
    facts.insert("clawed", row.points_clawed_back.to_string());
    facts.insert("rules", row.rules_version.to_string());
    facts.insert("due", row.earn_due_at.map_or("none".into(), show_time));
    facts.insert("closed_at", row.closed_at.map_or("none".into(), show_time));
    facts.insert("paid_at", row.paid_at.map_or("none".into(), show_time));
}

/// `refund o r1 a:1 b:2 freight 100`, or `refund o r1 full`.
fn refund_request(words: &[&str]) -> Line<RefundRequest> {
    let item = |word: &&str| {
        let (item, units) = word.split_once(':')?;
        Some((item.to_owned(), units.parse().ok()?))
    };
    Ok(RefundRequest {
        refund_id: words.get(2).and_then(|text| text.parse().ok()).ok_or("a refund is missing")?,
        lines: (!words.contains(&"full")).then(|| words.iter().skip(3).filter_map(item).collect()),
        freight: option(words, "freight").map_or(Ok(0), parse_number)?,
        return_coupons: !words.contains(&"keep"),
        remark: None,
    })
}

fn batch_facts(facts: &mut Facts, row: &CodeBatch) {
    facts.insert("", row.status.as_str().into());
    facts.insert("count", row.code_count.to_string());
    facts.insert("added", row.added_count.to_string());
    facts.insert("next", row.next_number.to_string());
    facts.insert("claimed", row.claimed_count.to_string());
    facts.insert("completed_at", row.completed_at.map_or("none".into(), show_time));
    facts.insert("exported_at", row.exported_at.map_or("none".into(), show_time));
}

/// A code's text stands for its digest.
fn code_digest(text: &str) -> CodeDigest {
    let mut digest = [0; 16];
    digest[..text.len()].copy_from_slice(text.as_bytes());
    digest
}

fn code_status(text: &str) -> Line<CodeStatus> {
    CodeStatus::parse(text).ok_or_else(|| format!("no status: {text}"))
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
        Outcome::Exchange(made) => {
            Named { coupon: Some(made.coupon.id), transaction: Some(made.transaction.id), ..Named::default() }
        }
        Outcome::CodeBatch(batch) | Outcome::CodesAdded { batch, .. } => {
            Named { batch: Some(batch.id), ..Named::default() }
        }
        Outcome::Transaction(row) => Named { transaction: Some(row.id), lot: row.lot_id, ..Named::default() },
        Outcome::Hold { hold, transaction_id, .. } => {
            Named { hold: Some(hold.id), transaction: Some(*transaction_id), ..Named::default() }
        }
        Outcome::Order(row) => Named {
            hold: row.hold_id,
            transaction: row.spend_id.or(row.earn_id),
            lot: row.earn_id.map(|id| LotId(id.0)),
            order: Some(row.order_id.clone()),
            ..Named::default()
        },
        Outcome::Refund(row) => {
            let case = row.coupons.iter().find_map(|one| one.compensation_id);
            Named { transaction: row.return_transaction_id, case, ..Named::default() }
        }
        Outcome::Transfer(both) => {
            let lot = both.received.allocations.first().map(|part| part.lot_id);
            Named { transaction: Some(both.sent.id), lot, ..Named::default() }
        }
        Outcome::CheckIn { check_in, .. } => {
            let id = check_in.transaction_id;
            Named { transaction: Some(id), lot: Some(LotId(id.0)), ..Named::default() }
        }
        Outcome::Report { report, .. } => {
            let lot = report.transaction_id.map(|id| LotId(id.0));
            Named { transaction: report.transaction_id, lot, ..Named::default() }
        }
        Outcome::Adjustment(row) => {
            Named { adjustment: Some(row.id), transaction: row.transaction_id, ..Named::default() }
        }
        Outcome::Compensation(_)
        | Outcome::Tenant(_)
        | Outcome::Rules(_)
        | Outcome::Deleted
        | Outcome::Settled(_)
        | Outcome::Swept(_)
        | Outcome::Job(_)
        | Outcome::Bulk(_)
        | Outcome::Task(_)
        | Outcome::Announced(_)
        | Outcome::Imported(_) => Named::default(),
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
        None => Validity::Relative {
            days: number("days", if words.contains(&"hours") { 0 } else { 30 })? as u32,
            hours: number("hours", 0)? as u32,
            starts_after_hours: number("after", 0)? as u32,
        },
    };
    let name = option(words, "name").unwrap_or("T");
    Ok(Definition {
        member_levels: option(words, "levels").map_or(Vec::new(), |all| all.split(',').map(str::to_owned).collect()),
        distribution: Window { starts_at: time("opens")?, ends_at: time("closes")? },
        limit_per_member: number("limit", 1)?,
        daily_cap: option(words, "cap").map(parse_number).transpose()?,
        weekly_cap: option(words, "weekly").map(parse_number).transpose()?,
        monthly_cap: option(words, "monthly").map(parse_number).transpose()?,
        budget: option(words, "budget").map(parse_number).transpose()?,
        points_price: option(words, "price").map(parse_number).transpose()?,
        returnable: !words.contains(&"kept"),
        refund_extend_days: number("extend", 0)? as u32,
        min_order_amount: number("min", 0)?,
        ..Definition::new(name, Benefit::AmountOff { amount: number("off", 500)? }, validity)
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
    rules.points.redeem.max_percent = option(words, "percent").map(parse_number).transpose()?.map(|most| most as u8);
    rules.points.redeem.max_points_per_order = option(words, "most").map(parse_number).transpose()?;
    rules.points.earn.delay_days = option(words, "delay").map_or(Ok(0), parse_number)? as u32;
    let most = |name| option(words, name).map(parse_number).transpose();
    rules.points.earn.max_points_per_order = most("per-order")?;
    rules.points.earn.max_points_per_day = most("per-day")?;
    rules.points.earn.max_points_per_week = most("per-week")?;
    rules.points.earn.max_points_per_month = most("per-month")?;
    rules.points.validity = match option(words, "live") {
        Some("month") => PointsValidity::EndOfMonth { after_months: 0 },
        Some("year") => PointsValidity::EndOfYear { after_years: 0 },
        Some(idle) if idle.starts_with("idle:") => {
            PointsValidity::Inactivity { days: parse_number(&idle[5..])? as u32 }
        }
        Some(days) => PointsValidity::Days { days: parse_number(days)? as u32 },
        None => PointsValidity::Never,
    };
    rules.points.approval_above = option(words, "approve-above").map(parse_number).transpose()?;
    rules.points.debt_policy = if words.contains(&"forgive") { DebtPolicy::Forgive } else { DebtPolicy::Owe };
    rules.orders.points_with_coupons = !words.contains(&"apart");
    rules.points.check_in.enabled = !words.contains(&"no-check-ins");
    let make_up = |name| option(words, name).map_or(Ok(0), parse_number);
    rules.points.check_in.make_up_days = make_up("make-up")? as u32;
    rules.points.check_in.make_up_price = make_up("price")?;
    rules.points.check_in.make_ups_per_month =
        option(words, "per-month").map(parse_number).transpose()?.map(|n| n as u32);
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
        requires: match option(words, "requires") {
            None => Vec::new(),
            Some(keys) => keys.split(',').map(|key| key.parse().map_err(|_| "no key")).collect::<Result<_, _>>()?,
        },
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

/// The id that an import makes of an old one.
fn old_id<T: OldId + FromStr<Err: std::fmt::Debug>>(old: &str) -> T {
    let number = old.bytes().fold(0xA0_u128, |number, byte| number << 8 | u128::from(byte));
    format!("{}{number:032x}", T::TEXT).parse().expect("a well-formed id")
}

trait OldId {
    const TEXT: &'static str;
}

impl OldId for TemplateId {
    const TEXT: &'static str = TemplateId::PREFIX;
}

impl OldId for CouponId {
    const TEXT: &'static str = CouponId::PREFIX;
}

/// An id that nothing has.
fn id<T: FromStr<Err: std::fmt::Debug>>(prefix: &str) -> T {
    format!("{prefix}{:032x}", u128::MAX).parse().expect("a well-formed id")
}

fn uuid_of(number: u128) -> uuid::Uuid {
    uuid::Uuid::from_u128(number)
}
