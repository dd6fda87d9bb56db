//! The heart: judges one command against the rows at hand.
//!
//! First the idempotency record, then the command's own checks in their order, then the change. A refused command changes
//! nothing but what time had already decided (settled expiries), which is true with or without it, and the job that asked for
//! it, which is dead then.

use serde::{Deserialize, Serialize};

use crate::bulk::{self, Bulk};
use crate::check_in::{self, CheckIn};
use crate::command::{Command, Envelope};
use crate::coupon::{self, CodeBatch, Compensation, Coupon, CouponStatus, Template};
use crate::exchange::{self, Exchange};
use crate::id::{Ids, MemberId, TaskKey, TransactionId};
use crate::job::{self, Job};
use crate::order::{self, Order, Refund};
use crate::points::{self, Adjustment, Hold, Imported, Transaction, Transfer};
use crate::rejection::Rejection;
use crate::rules::{self, RulesVersion};
use crate::state::State;
use crate::task::{self, Report, Task};
use crate::tenant::{self, ApiKey, Tenant};
use crate::time::Timestamp;
use crate::webhook::{self, Webhook};

/// What an accepted command gives. Recorded as JSON under its idempotency key, from which the answer is rendered again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    Tenant(Box<Tenant>),
    ApiKey(Box<ApiKey>),
    Template(Box<Template>),
    Rules(Box<RulesVersion>),
    Webhook(Box<Webhook>),
    Deleted,
    Coupon(Box<Coupon>),
    Exchange(Box<Exchange>),
    CodeBatch(Box<CodeBatch>),
    CodesAdded {
        batch: Box<CodeBatch>,
        /// The numbers of those that existed already and were left out.
        known: Vec<i64>,
    },
    Transaction(Box<Transaction>),
    Hold {
        hold: Box<Hold>,
        available: i64,
        transaction_id: TransactionId,
    },
    Order(Box<Order>),
    Refund(Box<Refund>),
    Compensation(Box<Compensation>),
    Adjustment(Box<Adjustment>),
    /// What a sweep found due on one object and has written.
    Settled(Settled),
    Swept(Sweep),
    Job(Box<Job>),
    Bulk(Box<Bulk>),
    /// How many bounds of issue windows, or lots that expire soon, were told.
    Announced(u64),
    Transfer(Box<Transfer>),
    Imported(Box<Imported>),
    CheckIn {
        #[serde(rename = "c")]
        check_in: Box<CheckIn>,
        /// Whether the member had checked in that day before.
        again: bool,
    },
    Task(Box<Task>),
    Report {
        #[serde(rename = "r")]
        report: Box<Report>,
        /// Whether it had been reported before.
        again: bool,
    },
}

/// How much of what time had decided was still to be written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    pub coupons_expired: u32,
    pub locks_released: u32,
    pub holds_released: u32,
    pub points_expired: i64,
    /// Lines of the ledger that an account's took; an order's few are not counted.
    #[serde(default)]
    pub ledger_lines: u32,
    #[serde(default)]
    pub orders_released: u32,
    /// Granted to orders whose points were to come later.
    #[serde(default)]
    pub points_granted: i64,
    #[serde(default)]
    pub grant_id: Option<TransactionId>,
}

/// What one page of a sweep over a tenant has written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sweep {
    pub coupons_expired: u64,
    pub locks_released: u64,
    pub holds_released: u64,
    pub accounts_settled: u64,
    pub points_expired: i64,
    #[serde(default)]
    pub orders_released: u64,
    #[serde(default)]
    pub points_granted: i64,
    /// False when more may be due.
    pub done: bool,
}

impl Sweep {
    /// Adds what another page has written, and whether that was the last.
    pub fn merge(&mut self, page: Sweep) {
        self.coupons_expired += page.coupons_expired;
        self.locks_released += page.locks_released;
        self.holds_released += page.holds_released;
        self.accounts_settled += page.accounts_settled;
        self.points_expired += page.points_expired;
        self.orders_released += page.orders_released;
        self.points_granted += page.points_granted;
        self.done = page.done;
    }

    pub fn add(&mut self, settled: Settled) {
        self.coupons_expired += u64::from(settled.coupons_expired);
        self.locks_released += u64::from(settled.locks_released);
        self.holds_released += u64::from(settled.holds_released);
        self.accounts_settled += u64::from(settled.points_expired > 0 || settled.holds_released > 0);
        self.points_expired += settled.points_expired;
        self.orders_released += u64::from(settled.orders_released);
        self.points_granted += settled.points_granted;
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    Accepted {
        outcome: Outcome,
        /// Whether this is the recorded answer of an earlier request.
        replayed: bool,
    },
    Refused(Rejection),
}

/// Why a decision function stopped early, before it changed anything.
#[derive(Debug, Clone, PartialEq)]
pub enum Interrupt {
    Refused(Rejection),
    /// Something is not at hand: load it, then decide again.
    Need(Need),
}

impl From<Rejection> for Interrupt {
    fn from(rejection: Rejection) -> Self {
        Interrupt::Refused(rejection)
    }
}

/// What must be loaded before the command can be decided, beside what its keys name. Seldom needed, so not always loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// All of the account's open lots ([`State::set_lots_complete`]).
    Lots(MemberId),
    /// The day, the week and the month of the tenant's calendar at this instant ([`State::load_periods`]).
    Periods(Timestamp),
    /// The day of the tenant's calendar at this instant, and when the day ends that comes so many days later
    /// ([`State::load_day_end`]).
    DayEnd { at: Timestamp, days: u32 },
    /// These tasks of the tenant ([`State::load_tasks`]).
    Tasks(Vec<TaskKey>),
    /// What the tasks that the batch reports require of their members ([`State::missing_prerequisites`]).
    Prerequisites,
}

/// Judges `envelope` and applies its effect to `state`.
///
/// # Errors
/// A [`Need`] when something is not at hand; `state` is unchanged then.
pub fn decide(state: &mut State, envelope: &Envelope) -> Result<Answer, Need> {
    if let Some(idempotency) = envelope.idempotency
        && let Some(record) = state.recorded(envelope.tenant, idempotency.key)
    {
        return Ok(if record.fingerprint != idempotency.fingerprint {
            Answer::Refused(Rejection::IdempotencyKeyReused)
        } else {
            let outcome = serde_json::from_str(&record.outcome).expect("recorded outcomes are written by this crate");
            Answer::Accepted { outcome, replayed: true }
        });
    }
    match apply(state, envelope) {
        Ok(outcome) => {
            if let Some(idempotency) = envelope.idempotency {
                let recorded = serde_json::to_string(&outcome).expect("outcomes are plain data");
                state.record_outcome(envelope.tenant, idempotency, recorded);
            }
            Ok(Answer::Accepted { outcome, replayed: false })
        }
        Err(Interrupt::Refused(rejection)) => Ok(Answer::Refused(rejection)),
        Err(Interrupt::Need(need)) => Err(need),
    }
}

fn apply(state: &mut State, envelope: &Envelope) -> Result<Outcome, Interrupt> {
    apply_command(state, envelope, &mut Ids::new(envelope.seed), &envelope.command)
}

fn apply_command(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    command: &Command,
) -> Result<Outcome, Interrupt> {
    match command {
        Command::CreateTenant(tenant) => {
            state.insert_tenant(tenant.clone());
            Ok(Outcome::Tenant(Box::new(tenant.clone())))
        }
        Command::CreateProgram(new) => Ok(tenant::create_program(state, envelope, new)?),
        Command::CreateApiKey { key, secret_digest } => Ok(tenant::create_api_key(state, key, *secret_digest)?),
        Command::RevokeApiKey(id) => {
            let key = state.revoke_api_key(envelope.tenant, *id, envelope.at)?;
            Ok(Outcome::ApiKey(Box::new(key)))
        }
        Command::CreateTemplate { definition, total_stock } => {
            Ok(coupon::create(state, envelope, ids, definition, *total_stock)?)
        }
        Command::UpdateTemplate { template_id, patch } => {
            Ok(coupon::update(state, envelope, ids, *template_id, patch)?)
        }
        Command::EnableTemplate { template_id, enabled } => {
            Ok(coupon::set_enabled(state, envelope, ids, *template_id, *enabled)?)
        }
        Command::ChangeStock { template_id, change } => {
            Ok(coupon::change_stock(state, envelope, ids, *template_id, *change)?)
        }
        Command::ArchiveTemplate(id) => Ok(coupon::archive(state, envelope, ids, *id)?),
        Command::DeleteTemplate(id) => Ok(coupon::delete(state, envelope, ids, *id)?),
        Command::Claim { template_id, member_id, member_level } => {
            coupon::claim(state, envelope, ids, *template_id, member_id, member_level.as_deref())
        }
        Command::Exchange { template_id, member_id, member_level } => {
            exchange::exchange(state, envelope, ids, *template_id, member_id, member_level.as_deref())
        }
        Command::CreateCodeBatch(new) => Ok(coupon::create_batch(state, envelope, ids, new)?),
        Command::AddCodes { batch_id, from_number, digests, max_uses, holders, last } => {
            Ok(coupon::add_codes(state, envelope, ids, *batch_id, *from_number, digests, max_uses, holders, *last)?)
        }
        Command::ChangeCodeBatch { batch_id, status } => {
            Ok(coupon::change_batch(state, envelope, ids, *batch_id, *status)?)
        }
        Command::ChangeCode { batch_id, digest, status } => {
            Ok(coupon::change_code(state, envelope, ids, *batch_id, *digest, *status)?)
        }
        Command::AssignCode { batch_id, digest, member_id } => {
            Ok(coupon::assign_code(state, envelope, ids, *batch_id, *digest, member_id.as_ref())?)
        }
        Command::SealCodeBatch(batch_id) => Ok(coupon::seal_batch(state, envelope, ids, *batch_id)?),
        Command::ClaimCode { digest, batch_id, template_id, member_id, member_level } => {
            let code = coupon::CodeAtHand { digest: *digest, batch_id: *batch_id, template_id: *template_id };
            coupon::claim_code(state, envelope, ids, code, member_id, member_level.as_deref())
        }
        Command::LockCoupon { coupon_id, order_id, expires_at } => {
            Ok(coupon::lock(state, envelope, ids, *coupon_id, order_id, *expires_at)?)
        }
        Command::UseCoupon { coupon_id, order_id, discount_amount } => {
            Ok(coupon::use_locked(state, envelope, ids, *coupon_id, order_id, *discount_amount)?)
        }
        Command::UnlockCoupon { coupon_id, order_id } => {
            Ok(coupon::release(state, envelope, ids, *coupon_id, order_id)?)
        }
        Command::ReturnCoupon { coupon_id, order_id, .. } => {
            Ok(coupon::return_used(state, envelope, ids, *coupon_id, order_id)?)
        }
        Command::RevokeCoupon { coupon_id, reason } => Ok(coupon::revoke(state, envelope, ids, *coupon_id, reason)?),
        Command::TransferCoupon { coupon_id, template_id, to_member_id, reason } => {
            Ok(coupon::transfer(state, envelope, ids, *coupon_id, *template_id, to_member_id, reason.as_deref())?)
        }
        Command::ImportTemplate { template_id, definition, total_stock, enabled } => {
            Ok(coupon::import_template(state, envelope, ids, *template_id, definition, *total_stock, *enabled)?)
        }
        Command::ImportCoupon(imported) => Ok(coupon::import_coupon(state, envelope, ids, imported)?),
        Command::ExtendCoupon { coupon_id, valid_until } => {
            Ok(coupon::extend(state, envelope, ids, *coupon_id, *valid_until)?)
        }
        Command::SettleCoupon(id) => {
            let before = state.coupon(envelope.tenant, *id)?.status;
            let after = coupon::settle(state, envelope, ids, *id)?.status;
            Ok(Outcome::Settled(Settled {
                coupons_expired: (before != CouponStatus::Expired && after == CouponStatus::Expired).into(),
                locks_released: (before == CouponStatus::Locked && after != CouponStatus::Locked).into(),
                ..Settled::default()
            }))
        }
        Command::Grant { member_id, movement, spendable } => {
            points::refuse_unapproved(state, envelope, movement)?;
            points::grant(state, envelope, ids, member_id, movement, *spendable)
        }
        Command::Debit { member_id, movement } => {
            points::refuse_unapproved(state, envelope, movement)?;
            points::debit(state, envelope, ids, member_id, movement)
        }
        Command::Adjust(asked) => points::adjust(state, envelope, ids, asked),
        Command::ApproveAdjustment { adjustment_id, .. } => points::approve(state, envelope, ids, *adjustment_id),
        Command::RejectAdjustment { adjustment_id, reason } => {
            Ok(points::reject(state, envelope, ids, *adjustment_id, reason)?)
        }
        Command::Hold { member_id, movement, expires_at } => {
            points::hold(state, envelope, ids, member_id, movement, *expires_at)
        }
        Command::CaptureHold { member_id, hold_id, points } => {
            points::capture(state, envelope, ids, member_id, *hold_id, *points)
        }
        Command::ReleaseHold { member_id, hold_id } => points::release(state, envelope, ids, member_id, *hold_id),
        Command::Reverse { member_id, transaction_id, points, remark } => {
            points::reverse(state, envelope, ids, member_id, *transaction_id, *points, remark.as_deref())
        }
        Command::ImportAccount(imported) => points::import(state, envelope, ids, imported),
        Command::ReserveOrder(asked) => order::reserve(state, envelope, ids, asked),
        Command::PayOrder { member_id, order_id, calendar } => {
            order::pay(state, envelope, ids, member_id, order_id, calendar)
        }
        Command::CancelOrder { member_id, order_id, reason } => {
            order::cancel(state, envelope, ids, member_id, order_id, reason.as_deref())
        }
        Command::RefundOrder { member_id, order_id, refund } => {
            order::refund(state, envelope, ids, member_id, order_id, refund)
        }
        Command::ConfirmOrder { member_id, order_id, calendar } => {
            order::confirm(state, envelope, ids, member_id, order_id, calendar)
        }
        Command::SettleOrder { member_id, order_id, calendar } => {
            order::settle(state, envelope, ids, member_id, order_id, calendar)
        }
        Command::CloseCompensation { compensation_id, status, remark } => {
            Ok(coupon::resolve(state, envelope, ids, *compensation_id, *status, remark)?)
        }
        Command::SetRules { expected_version, rules, effective_from } => {
            Ok(rules::set(state, envelope, ids, *expected_version, rules, *effective_from)?)
        }
        Command::CreateWebhook(new) => Ok(webhook::create(state, envelope, ids, new)?),
        Command::ChangeWebhook { webhook_id, change } => {
            Ok(webhook::change(state, envelope, ids, *webhook_id, change)?)
        }
        Command::Transfer { from, to, points, reference, remark } => {
            points::transfer(state, envelope, ids, from, to, *points, reference.as_deref(), remark.as_deref())
        }
        Command::ReverseTransfer { from, to, transaction_id, counterpart_id, points, remark } => {
            let (id, counterpart) = (*transaction_id, *counterpart_id);
            points::reverse_transfer(state, envelope, ids, from, to, id, counterpart, *points, remark.as_deref())
        }
        Command::Merge { from, into, remark } => points::merge(state, envelope, ids, from, into, remark.as_deref()),
        Command::CheckIn { member_id, missed: None, calendar } => {
            check_in::check_in(state, envelope, ids, member_id, calendar)
        }
        Command::CheckIn { member_id, missed: Some(missed), calendar } => {
            check_in::make_up(state, envelope, ids, member_id, *missed, calendar)
        }
        Command::CreateTask { key, definition } => task::create(state, envelope, ids, key, definition),
        Command::UpdateTask { key, patch } => task::update(state, envelope, ids, key, patch),
        Command::DeleteTask(key) => Ok(task::delete(state, envelope, ids, key)?),
        Command::CompleteTask { member_id, key, completion_id, calendar } => {
            task::report(state, envelope, ids, member_id, key, completion_id, calendar)
        }
        Command::RecordSweep(sweep) => Ok(Outcome::Swept(*sweep)),
        Command::EnqueueGrant { member_id, movement, spendable } => {
            points::refuse_unapproved(state, envelope, movement)?;
            Ok(job::enqueue_grant(state, envelope, ids, member_id, movement, *spendable)?)
        }
        Command::EnqueueExtension { template_id, valid_until, ends_before } => {
            Ok(job::enqueue_extension(state, envelope, ids, *template_id, *valid_until, *ends_before)?)
        }
        Command::ExtendPage { job_id, page } => Ok(job::extend_page(state, envelope, ids, *job_id, page)?),
        Command::CreateBulk { bulk_id, template_id, staged } => {
            Ok(bulk::create(state, envelope, ids, *bulk_id, *template_id, *staged)?)
        }
        Command::WorkChunk { bulk_id, number, work } => bulk::work_chunk(state, envelope, ids, *bulk_id, *number, work),
        Command::RemindExpiry(page) => points::remind(state, envelope, ids, page),
        Command::AnnounceWindows { from, until, templates } => {
            Ok(coupon::announce_windows(state, envelope, ids, *from, *until, templates)?)
        }
        Command::CancelBulk(id) => Ok(bulk::cancel(state, envelope, ids, *id)?),
        Command::RetryJob(id) => Ok(job::retry(state, envelope, *id)?),
        Command::CancelJob(id) => Ok(job::cancel(state, envelope, ids, *id)?),
        Command::Work { ticket, command } => {
            let job = job::under_ticket(state, envelope, *ticket)?;
            let result = apply_command(state, envelope, ids, command);
            match &result {
                Ok(outcome) => job::conclude(state, envelope, job, Ok(outcome)),
                Err(Interrupt::Refused(rejection)) => job::conclude(state, envelope, job, Err(rejection)),
                Err(Interrupt::Need(_)) => {}
            }
            result
        }
        Command::SettleAccount(member_id) => {
            let own = state.account(envelope.tenant, member_id);
            let (expired_before, sequence_before) = (own.account.expired, own.account.sequence);
            let holds_released = own.holds().filter(|hold| hold.is_overdue(envelope.at)).count() as u32;
            points::settle(state, envelope, ids, member_id)?;
            let account = &state.account(envelope.tenant, member_id).account;
            Ok(Outcome::Settled(Settled {
                holds_released,
                points_expired: account.expired - expired_before,
                ledger_lines: (account.sequence - sequence_before) as u32,
                ..Settled::default()
            }))
        }
    }
}
